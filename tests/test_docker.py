"""The images for real: built, the whole compiled pipeline run in their containers, the endpoint asked for a repair.

kfp.local's DockerRunner can take a container that fails fast for one that succeeded, so these tests look at what
the steps wrote.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from components.config import Settings
from components.inpainting.images import decode_image, read_image, read_mask
from components.manifest import code_version, read_manifest
from components.tracking import CHAMPION, Registry
from pipelines.compile import compile_pipeline
from tests.docker_base import build_image, docker_command, torch_index

DOCKER = docker_command()
pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.skipif(not DOCKER, reason="there is no Docker engine, or no client that builds with BuildKit"),
]
UID = os.getuid() or 1000
"""The images' own user where tests run as root; else a user who may write the folders of the test."""
PARAMETERS = {
    "data_image_size": 32,
    "data_num_train": 64,
    "data_num_val": 8,
    "data_num_test": 4,
    "train_steps": 10,
    "train_precision": "fp32",
    "gate_mode": "off",
    "run_gpu": "none",
}


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """The names of the built images."""
    with torch_index() as index:
        return {target: build_image(DOCKER, target, index) for target in ("serve", "cpu")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the containers' user may write, below folders that it may enter."""
    made = tmp_path_factory.mktemp("docker")
    for path in (made, made / "state", made / "steps", made / "models"):
        path.mkdir(exist_ok=True)
        os.chown(path, UID, -1)
    for parent in [made, *made.parents][:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    return made


@pytest.fixture(scope="module")
def run(images: dict[str, str], folder: Path) -> Path:
    """The whole pipeline, each step in a container with a read-only root; returns the folder of the steps."""
    from docker.types import Mount
    from kfp import local
    from kfp.components import load_component_from_file

    pipeline = _in_image(compile_pipeline(folder / "kintsugi.yaml"), images["cpu"])
    state = Mount("/tmp/kintsugi", str(folder / "state"), type="bind")
    runner = local.DockerRunner(
        user=f"{UID}:{UID}", read_only=True, tmpfs={"/tmp": "mode=1777"}, mounts=[state], network_mode="none"
    )
    local.init(runner=runner, pipeline_root=str(folder / "steps"))
    load_component_from_file(str(pipeline))(**_arguments(pipeline))
    (steps,) = (folder / "steps").iterdir()
    return steps


def test_images_run_as_a_user_who_is_not_root_and_say_what_is_in_them(images: dict[str, str]) -> None:
    for image in images.values():
        (facts,) = json.loads(_docker("image", "inspect", image))
        assert facts["Config"]["User"] == "1000:1000"
        assert facts["Config"]["Labels"]["org.opencontainers.image.version"] == code_version()
        listed = json.loads(_docker("run", "--rm", image, "cat", "/usr/share/kintsugi/sbom.json"))
        assert listed["bomFormat"] == "CycloneDX"
        names = {component["name"] for component in listed["components"]}
        assert ("torch" in names) == ("/cpu:" in image)
        assert "bentoml" in names


def test_the_serving_image_has_nothing_of_training(images: dict[str, str]) -> None:
    command = "import importlib.util as u; print([n for n in ('torch', 'kfp', 'mlflow', 'skimage') if u.find_spec(n)])"
    assert _docker("run", "--rm", "--read-only", images["serve"], "python3", "-c", command).strip() == "[]"


def test_the_gpu_image_is_built_up_to_its_packages(images: dict[str, str]) -> None:
    """They are gigabytes of torch's own index, which the workflow fetches; their list is a stage of every build."""
    assert "cpu" in images
    listed = _docker("run", "--rm", build_image(DOCKER, "lists", ""), "cat", "/lists/gpu.txt").splitlines()
    assert {"torch==2.13.0+cu126", "nvidia-cudnn-cu12<9.11"} <= set(listed)


def test_the_whole_pipeline_runs_in_containers(run: Path, folder: Path) -> None:
    assert read_manifest(run / "prepare" / "dataset", "dataset").digest
    assert read_manifest(run / "train" / "model", "model").code_version == code_version()
    assert (run / "evaluate" / "report").read_text().startswith("<!doctype html>")
    assert read_manifest(run / "package" / "bento", "bento").facts["tag"].startswith("kintsugi:")
    champion = Registry(Settings(home=folder / "state"), "kintsugi").aliased(CHAMPION)
    assert champion is not None
    assert champion.bento == champion.tags["bento"]


@pytest.fixture
def endpoint(images: dict[str, str], run: Path, folder: Path) -> Iterator[str]:
    """The address of a container that serves the champion, which a follower in another container fetched."""
    _docker(
        "run", "--rm", "--read-only", "--tmpfs=/tmp:mode=1777", f"--user={UID}",
        f"--volume={folder / 'state'}:/tmp/kintsugi", f"--volume={folder / 'models'}:/models",
        images["cpu"], "kintsugi", "follow", "--once", "--output=/models",
    )  # fmt: skip
    container = _docker(
        "run", "--detach", "--read-only", "--tmpfs=/tmp:mode=1777", "--cap-drop=ALL",
        "--publish=127.0.0.1::3000",
        "--security-opt=no-new-privileges", f"--volume={folder / 'models'}:/models:ro", images["serve"],
    ).strip()  # fmt: skip
    try:
        url = f"http://{_docker('port', container, '3000/tcp').strip()}"
        _await(f"{url}/readyz", container)
        yield url
    finally:
        _docker("rm", "--force", container)


def test_the_serving_container_repairs_a_picture(endpoint: str, run: Path) -> None:
    golden = sorted((run / "package" / "bento" / "golden").glob("*-image.png"))[0]
    mask = golden.with_name(golden.name.replace("-image", "-mask"))
    files = {name: (f"{name}.png", path.read_bytes()) for name, path in (("image", golden), ("mask", mask))}
    answer = httpx.post(f"{endpoint}/inpaint", files=files, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model-version"] == "1"
    repaired, holes = decode_image(answer.content), read_mask(mask).astype(bool)
    damaged = read_image(golden)
    assert np.array_equal(repaired[~holes], damaged[~holes])
    assert not np.array_equal(repaired[holes], damaged[holes])


def _in_image(pipeline: Path, image: str) -> Path:
    """The compiled pipeline with every step in one image."""
    documents = list(yaml.safe_load_all(pipeline.read_text()))
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        executor["container"]["image"] = image
    pipeline.write_text(yaml.safe_dump_all(documents))
    return pipeline


def _arguments(pipeline: Path) -> dict[str, Any]:
    """The test's parameters as the run form takes them: fields that it has not go into its overrides."""
    spec = next(yaml.safe_load_all(pipeline.read_text()))
    fields = spec["root"]["inputDefinitions"]["parameters"]
    shown = {name: value for name, value in PARAMETERS.items() if name in fields}
    if "run_overrides" in fields:
        shown["run_overrides"] = ", ".join(f"{k}={v}" for k, v in PARAMETERS.items() if k not in fields)
    return shown


def _await(url: str, container: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(_docker("logs", container))


def _docker(*arguments: str) -> str:
    done = subprocess.run([DOCKER, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + (done.stderr if arguments[0] == "logs" else "")
