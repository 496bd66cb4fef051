"""A Docker engine for the tests, the images built on it, and stand-ins where a registry or an index is out of reach.

Where Docker Hub does not answer, the base image is a Debian with its own Python 3.11, made with debootstrap. Where
torch's index does not, pip's own configuration may know a CPU build (a folder of wheels, say); it is served on
loopback in its place. The machine's pip.conf and CA bundle reach the build as secrets, and no image.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from components.manifest import code_version
from tests.loopback import serve_http

ROOT = Path(__file__).parent.parent
STAND_IN = "kintsugi-base:bookworm"
REPOSITORY, TAG = "kintsugi-test", "built"
TORCH_INDEX = "https://download.pytorch.org/whl"
_LAST_BUILDKIT_WITHOUT_BUILDX = 22
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def docker_command() -> str:
    """A docker client that can build with BuildKit and reaches an engine; ``""`` where there is none."""
    for folder in os.environ["PATH"].split(os.pathsep):
        client = shutil.which("docker", path=folder)
        if client and _succeeds(client, "info") and (_succeeds(client, "buildx", "version") or _old_enough(client)):
            return client
    return ""


def build_image(docker: str, target: str, torch_index: str) -> str:
    """Build a target of the Dockerfile; returns its name."""
    name = f"{REPOSITORY}/{target}:{TAG}"
    with tempfile.TemporaryDirectory() as folder:
        pip_conf = Path(folder) / "pip.conf"
        secrets = []
        if _AUTHORITIES.exists():
            pip_conf.write_text("[global]\ncert = /run/secrets/ca\n")
            secrets = ["--secret", f"id=pip,src={pip_conf}", "--secret", f"id=ca,src={_AUTHORITIES}"]
        values = {"VERSION": code_version(), "AUDIT": "skip", "TORCH_INDEX": torch_index, "BASE": base_image(docker)}
        arguments = [f"--build-arg={key}={value}" for key, value in values.items() if value]
        command = [docker, "build", "--network=host", f"--target={target}", f"--tag={name}", *arguments, *secrets]
        _run([*command, "--file=infra/docker/Dockerfile", "."], cwd=ROOT, env=os.environ | {"DOCKER_BUILDKIT": "1"})
    return name


@functools.cache
def base_image(docker: str) -> str:
    """The base image, ``""`` for the Dockerfile's own, which can be pulled, else the stand-in's name."""
    pinned = re.search(r"^ARG BASE=(\S+)", (ROOT / "infra/docker/Dockerfile").read_text(), re.MULTILINE)
    assert pinned
    if _succeeds(docker, "image", "inspect", pinned[1]) or _succeeds(docker, "pull", "--quiet", pinned[1]):
        return ""
    if not _succeeds(docker, "image", "inspect", STAND_IN):
        _make_stand_in(docker)
    return STAND_IN


@contextmanager
def torch_index() -> Iterator[str]:
    """An index of CPU builds of torch for pip: torch's own, or one on loopback."""
    if _answers(f"{TORCH_INDEX}/cpu/torch/"):
        yield TORCH_INDEX
        return
    with tempfile.TemporaryDirectory() as folder:
        wheels = Path(folder) / "cpu" / "torch"
        wheels.mkdir(parents=True)
        (pinned,) = (
            line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.startswith("torch==")
        )
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), f"{pinned}+cpu"])
        with serve_http(SimpleHTTPRequestHandler, directory=folder) as host:
            yield f"http://{host}"


def _make_stand_in(docker: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        packages = "--include=python3,python3-venv,ca-certificates"
        _run(["debootstrap", "--variant=minbase", packages, "bookworm", str(root)])
        archive = Path(folder) / "root.tar"
        _run(["tar", "--directory", str(root), "--create", "--file", str(archive), "."])
        _run([docker, "import", str(archive), STAND_IN])


def _old_enough(client: str) -> bool:
    done = subprocess.run([client, "version", "--format", "{{.Client.Version}}"], capture_output=True, text=True)
    return int(done.stdout.partition(".")[0] or 99) <= _LAST_BUILDKIT_WITHOUT_BUILDX


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command[:4])}: {(done.stdout + done.stderr)[-3000:]}"
