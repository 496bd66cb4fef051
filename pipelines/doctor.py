"""``kintsugi doctor``: is this machine fit to run the platform? Told in seconds, whatever is down."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from rich.console import Console
from rich.markup import escape

from components.config import Settings, TrainConfig
from components.progress import explain
from pipelines.local import MIN_FREE_BYTES

_PACKAGES = ("torch", "kfp", "mlflow", "bentoml", "onnxruntime", "pillow", "scikit-image")

_MLFLOW_TIMEOUT = 3  # seconds a request; its own client would try for minutes
_SHOWN = {
    "capability": "capability {}",
    "driver": "driver {}",
    "free_memory_gb": "{} GB free",
    "cuda": "CUDA {}",
    "cudnn": "cuDNN {}",
    "torch": "torch {}",
    "note": "{}",
}
_MIN_SHARED_BYTES = 64 << 20
_MIN_MEMORY_BYTES = 2 << 30

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
    yield "compute", _compute
    yield "compiler", _compiler
    yield "memory", _memory
    yield "shared memory", _shared_memory
    yield "state folder", _state
    yield "MLflow", _mlflow
    yield "port 3000", lambda _: _port(3000)
    yield "port 5000", lambda _: _port(5000)


def _python(_: Settings) -> str:
    if sys.version_info[:2] != (3, 11):
        raise ValueError(f"{platform.python_version()}, but Kintsugi is made for 3.11; 'make' finds it where installed")
    return platform.python_version()


def _packages(_: Settings) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)


def _device(_: Settings) -> str:
    from components.hardware import choose_device, preflight

    device = choose_device()
    facts = preflight(device)
    details = (text.format(facts[name]) for name, text in _SHOWN.items() if name in facts)
    return "; ".join([device.description, *details])


def _compute(_: Settings) -> str:
    from components.hardware import choose_compute, choose_device

    default = TrainConfig()
    compute = choose_compute(choose_device(), "auto", "auto", default.steps)
    return f"for {default.model} auto chooses {compute.reason}"


def _compiler(_: Settings) -> str:
    from components.hardware import cpp_compiler, cpp_problem

    problem = cpp_problem()
    return f"{problem}; without it CPUs train uncompiled" if problem else f"{cpp_compiler()} works"


def _memory(_: Settings) -> str:
    import psutil

    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # a container's own limit; "max", no number, is none
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, limit - used)
    hint = "; less than 2 GB is little for a training" if free < _MIN_MEMORY_BYTES else ""
    return f"{free / 1e9:.1f} GB free{hint}"


def _shared_memory(_: Settings) -> str:
    if not Path("/dev/shm").is_dir():
        return "none on this system"
    total = shutil.disk_usage("/dev/shm").total
    few = total < _MIN_SHARED_BYTES
    hint = "; several GPUs need more than 64 MB (docker run --shm-size=1g, in Kubernetes a memory volume there)"
    return f"/dev/shm {total / 1e6:.0f} MB{hint if few else ''}"


def _state(settings: Settings) -> str:
    settings.make_state()
    free = shutil.disk_usage(settings.state).free
    if free < MIN_FREE_BYTES:
        raise ValueError(f"{settings.state} has only {free >> 20} MB left; set KINTSUGI_HOME to a larger disk")
    return f"{settings.state}, {free / 1e9:.0f} GB free"


def _mlflow(settings: Settings) -> str:
    parts = urlsplit(settings.tracking_uri)
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else "in the state folder"
    if parts.scheme in ("http", "https"):
        _ask_mlflow(where, _login(parts))
    return f"{where}, champion: {_champion(settings)}"


def _ask_mlflow(address: str, headers: dict[str, str]) -> None:
    """Raise ``ValueError`` unless the server answers both its health check and a question that matters."""
    try:
        for path in ("/health", "/api/2.0/mlflow/experiments/search?max_results=1"):  # /health skips the host check
            request = urllib.request.Request(address.rstrip("/") + path, headers=headers)
            urllib.request.urlopen(request, timeout=_MLFLOW_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        raise ValueError(f"{address} {_refusal(error, urlsplit(address).hostname or '')}") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ValueError(
            f"{address} does not answer ({reason}); start it, or unset MLFLOW_TRACKING_URI to use the state folder"
        ) from None


def _refusal(error: urllib.error.HTTPError, host: str) -> str:
    if error.code == 401:
        return "wants a login; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if error.code == 403:
        return (
            f"answers 403: it does not know itself as {host!r}, or the login may not read experiments; start that "
            f"server with --allowed-hosts '{host},{host}:*,localhost,localhost:*'"
        )
    return f"answers {error}"


def _login(parts: SplitResult) -> dict[str, str]:
    """The login that MLflow's client would send."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or parts.username
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or parts.password
    if not user or not password:
        return {}
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def _champion(settings: Settings) -> str:
    if not settings.tracking_uri and not (settings.state / "mlflow.db").exists():
        return "none yet; 'make run' trains one"
    from components.tracking import Registry

    version = Registry(settings, "kintsugi").champion()
    return f"version {version.number}, SSIM {version.scores['ssim']:.4f}" if version else "none yet"


def _port(port: int) -> str:
    with socket.socket() as probe:
        probe.settimeout(1)
        return "in use; pass another --port" if probe.connect_ex(("127.0.0.1", port)) == 0 else "free"
