"""The verify step: start the Bento as users will, ask it for repairs, compare with the trainer's own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from components.config import ServeConfig, Settings
from components.inpainting.images import ROUNDING, composite, decode_image, read_image, read_mask
from components.manifest import read_manifest
from components.progress import say, step, track
from components.tracking import Registry

_START_SECONDS = 180


class ServiceError(ValueError):
    """The Bento did not start, or stopped."""


@step("verify")
def verify(config: ServeConfig, bento: Path, settings: Settings) -> bool:
    """Whether the Bento's own server repairs every golden picture as the trainer's network did.

    Every hole may differ by ``ROUNDING`` grey levels, every known pixel by none. The registered version is tagged
    with the answer. Raises ``ServiceError`` when the server does not come up.
    """
    facts = read_manifest(bento, "bento").facts
    tag = facts["tag"]
    cases = sorted((bento / "golden").glob("*-image.png"))
    differences = []
    with serve_bento(bento / "kintsugi.bento", tag) as url, httpx.Client(base_url=url, timeout=60) as client:
        for image in track(cases, "verify", len(cases)):
            differences.append(_difference(client, image))
    verified = bool(cases) and max(differences) <= ROUNDING
    worst = max(differences, default=255)
    say(f"{tag} answered {len(cases)} golden requests, worst difference {worst} of 255: "
        + ("verified" if verified else "not verified"))  # fmt: skip
    Registry(settings, config.model_name).tag(facts["version"], {"verified": str(verified).lower()})
    return verified


@contextmanager
def serve_bento(archive: Path, tag: str) -> Iterator[str]:
    """Serve a ``.bento`` archive from a store of its own on a free port; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="kintsugi-verify-") as store:
        environment = os.environ | {"BENTOML_HOME": store, "BENTOML_DO_NOT_TRACK": "True"}
        port = free_port()
        bentoml = [sys.executable, "-m", "bentoml"]
        subprocess.run([*bentoml, "import", str(archive)], env=environment, check=True, capture_output=True)
        log = Path(store) / "serve.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*bentoml, "serve", tag, "--host", "127.0.0.1", "--port", str(port)],
                env=environment, cwd=store, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            _await_ready(process, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(process)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _difference(client: httpx.Client, image: Path) -> int:
    mask_path = image.with_name(image.name.replace("-image", "-mask"))
    expected = read_image(image.with_name(image.name.replace("-image", "-expected")))
    files = {"image": image.read_bytes(), "mask": mask_path.read_bytes()}
    response = client.post("/inpaint", files={name: (f"{name}.png", content) for name, content in files.items()})
    response.raise_for_status()
    served = decode_image(response.content)
    known = composite(read_image(image), served, read_mask(mask_path))
    if not np.array_equal(known, served):
        return 255
    return int(np.abs(served.astype(int) - expected.astype(int)).max())


def _await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(f"the Bento's server stopped at its start: {log.read_text()[-2000:]}")
        try:
            if httpx.get(f"{url}/readyz", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise ServiceError(f"the Bento's server was not ready after {_START_SECONDS} s: {log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, which are one process group."""
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
