"""Bentos on this machine: a store of them, their server in a process of its own, and what that process loads."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

BANNED = frozenset({"kfp", "mlflow", "torch"})
"""What the serving process does not load."""

_START_SECONDS = 180
_IMPORT = re.compile(r"^import time: *\d+ \| *\d+ \| *(\w+)")


class ServiceError(ValueError):
    """The Bento did not start, or stopped, or loads what it should not."""


@dataclass(frozen=True)
class Server:
    """A running server: its address, its log, in which Python notes every import, and the process that was started."""

    url: str
    log: Path
    pid: int = 0

    def loaded(self) -> set[str]:
        """The top-level packages that its processes have loaded so far."""
        lines = self.log.read_text(errors="replace").splitlines()
        return {found[1] for line in lines if (found := _IMPORT.match(line))}

    def check_loaded(self) -> None:
        """Raise ``ServiceError`` where it has loaded what is ``BANNED``."""
        if banned := sorted(BANNED & self.loaded()):
            raise ServiceError(f"the Bento's server loads {', '.join(banned)}, which stay out of the serving process")


def bento_environment(store: Path) -> dict[str, str]:
    """The environment under which the ``bentoml`` command sees the Bentos of a store."""
    return os.environ | {"BENTOML_HOME": str(store), "BENTOML_DO_NOT_TRACK": "True"}


def import_bento(archive: Path, store: Path) -> None:
    """Put a ``.bento`` archive into a store. Raises ``ServiceError`` where it is none."""
    store.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bentoml", "import", str(archive)]
    done = subprocess.run(command, env=bento_environment(store), capture_output=True, text=True)
    if done.returncode:
        raise ServiceError(f"{archive} cannot be imported: {done.stderr.strip()[-500:]}")


@contextmanager
def run_server(tag: str, store: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Serve a Bento of a store on a free port of this machine alone, with ``settings`` instead of the environment's.

    Raises ``ServiceError`` when it does not come up.
    """
    inherited = {name: value for name, value in bento_environment(store).items() if not name.startswith("KINTSUGI_")}
    environment = inherited | {"PYTHONPROFILEIMPORTTIME": "1"} | dict(settings or {})
    with tempfile.TemporaryDirectory(prefix="kintsugi-serve-", ignore_cleanup_errors=True) as scratch:
        port = free_port()
        log = Path(scratch) / "serve.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)],
                env=environment, cwd=scratch, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        server = Server(f"http://127.0.0.1:{port}", log, process.pid)
        try:
            _await_ready(process, server)
            yield server
        finally:
            _stop(process)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(process: subprocess.Popen[bytes], server: Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(f"the Bento's server stopped at its start: {_said(server.log)}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/readyz", timeout=5).is_success:
                return
        time.sleep(0.2)
    raise ServiceError(f"the Bento's server was not ready after {_START_SECONDS} s: {_said(server.log)}")


def _said(log: Path) -> str:
    """The end of a log, without the imports."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if not line.startswith("import time:"))[-2000:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, which are one process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
