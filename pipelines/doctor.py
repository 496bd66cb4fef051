"""``kintsugi doctor``: is this machine fit to run the platform?"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape

from components.config import Settings
from components.progress import explain
from pipelines.local import MIN_FREE_BYTES

_PACKAGES = ("torch", "kfp", "mlflow", "bentoml", "onnxruntime", "pillow", "scikit-image")

Check = Callable[[Settings], str]


def examine(settings: Settings, console: Console) -> bool:
    """Print one line per check; returns whether all passed."""
    healthy = True
    for name, check in _checks():
        try:
            console.print(f"[green]✓[/] {name}: {escape(check(settings))}", highlight=False, soft_wrap=True)
        except Exception as error:  # whatever is wrong here is what the user wants to hear
            healthy = False
            console.print(f"[red]✗[/] {name}: {escape(explain(error))}", highlight=False, soft_wrap=True)
    return healthy


def _checks() -> Iterator[tuple[str, Check]]:
    yield "Python", _python
    yield "packages", _packages
    yield "device", _device
    yield "state folder", _state
    yield "champion", _champion
    yield "port 3000", lambda _: _port(3000)
    yield "port 5000", lambda _: _port(5000)


def _python(_: Settings) -> str:
    if sys.version_info[:2] != (3, 11):
        raise ValueError(f"{platform.python_version()}, but Kintsugi is made for 3.11; 'make' finds it where installed")
    return platform.python_version()


def _packages(_: Settings) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)


def _device(_: Settings) -> str:
    from components.hardware import choose_device

    return choose_device().description


def _state(settings: Settings) -> str:
    settings.make_state()
    free = shutil.disk_usage(settings.state).free
    if free < MIN_FREE_BYTES:
        raise ValueError(f"{settings.state} has only {free >> 20} MB left; set KINTSUGI_HOME to a larger disk")
    return f"{settings.state}, {free / 1e9:.0f} GB free"


def _champion(settings: Settings) -> str:
    if not settings.tracking_uri and not (settings.state / "mlflow.db").exists():
        return "none yet; 'make run' trains one"
    from components.tracking import CHAMPION, Registry

    version = Registry(settings, "kintsugi").aliased(CHAMPION)
    return f"version {version.number}, SSIM {version.scores['ssim']:.4f}" if version else "none yet"


def _port(port: int) -> str:
    with socket.socket() as probe:
        probe.settimeout(1)
        return "in use; pass another --port" if probe.connect_ex(("127.0.0.1", port)) == 0 else "free"
