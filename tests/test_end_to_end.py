"""The whole main job: the compiled pipeline run three times in one state folder, then used."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

from components.bentos import free_port
from components.config import Settings
from components.inpainting.images import Bytes, decode_image, encode_png, read_image
from components.tracking import CHALLENGER, CHAMPION, Registry
from tests.conftest import SMALL

pytestmark = pytest.mark.slow

MANUAL = "by-hand"
BY_HAND = ["--set=gate_mode=manual", f"--set=serve_model_name={MANUAL}"]
TINY = [f"--set={name}={value}" for name, value in {**SMALL, "train_learning_rate": 0.0005}.items()]


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "KINTSUGI_"))}
    return clean | {"KINTSUGI_HOME": str(home), "COLUMNS": "160"}


def kintsugi(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kintsugi") / "state"


@pytest.fixture(scope="module")
def runs(state: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """A model that is promoted, the same again of pictures that three tasks read, and one that was not trained."""
    return {
        "promoted": kintsugi(state, "run", *TINY, "--set", "train_steps=60", "--fail-if-refused"),
        "kept": kintsugi(state, "run", *TINY, "--set", "train_steps=60", "--set", "data_num_shards=3"),
        "refused": kintsugi(state, "run", *TINY, "--set", "train_steps=0", "--fail-if-refused"),
        "manual": kintsugi(state, "run", *TINY, "--set", "train_steps=60", "--fail-if-refused", *BY_HAND),
    }


@pytest.fixture
def pair(photographs: list[Bytes], tmp_path: Path) -> tuple[Path, Path]:
    """A photograph and a mask as files."""
    image, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(photographs[1]).save(image)
    holes = np.zeros(photographs[1].shape[:2], np.uint8)
    holes[100:104, 30:400] = holes[150:190, 200:230] = 255
    Image.fromarray(holes).save(mask)
    return image, mask


Runs = dict[str, subprocess.CompletedProcess[str]]


def test_first_model_is_promoted(runs: Runs, state: Path) -> None:
    output = runs["promoted"].stdout
    assert runs["promoted"].returncode == 0, output + runs["promoted"].stderr
    assert str(state) in output
    assert "Promoted: version 1 is champion now." in output
    assert "[D loss: " in output
    for words in ("doing nothing", "biharmonic (classical)", "scratches", "overall", "make serve", "make ui"):
        assert words in output
    report = next(line.split()[1] for line in output.splitlines() if line.startswith("Report"))
    assert Path(report).read_text().startswith("<!doctype html>")


def test_every_task_left_its_page(runs: Runs, state: Path) -> None:
    first, shards, *_ = sorted((state / "runs").glob("*"))
    pages = [path for name in ("report", "card") for path in first.glob(f"steps/**/{name}") if path.is_file()]
    assert {page.parent.name for page in pages} == {
        "plan", "ingest", "prepare", "train", "evaluate", "gate", "register", "package", "verify", "promote",
    }  # fmt: skip
    assert all(page.read_text().startswith("<!doctype html>") for page in pages)
    read = [page.read_text() for page in shards.glob("steps/**/ingest/report")]
    assert sorted(re.findall(r"shard (\d/3)</title>", "".join(read))) == ["1/3", "2/3", "3/3"]


def test_an_equal_model_is_not_better_and_the_champion_stays(runs: Runs) -> None:
    output = runs["kept"].stdout
    assert runs["kept"].returncode == 0, output + runs["kept"].stderr
    assert "does not certainly repair better than the champion, version 1" in output
    assert "version 1 stays champion" in output


def test_an_untrained_model_is_refused(runs: Runs, state: Path) -> None:
    assert runs["refused"].returncode == 3, runs["refused"].stdout + runs["refused"].stderr
    assert "The model was never trained (0 steps)." in runs["refused"].stdout
    registry = Registry(Settings(home=state), "kintsugi")
    assert [version.number for version in registry.versions()] == ["1"]
    champion = registry.aliased(CHAMPION)
    assert champion is not None
    assert champion.number == "1"


def test_a_person_has_the_last_word_where_the_policy_says_so(runs: Runs, state: Path) -> None:
    assert runs["manual"].returncode == 0, runs["manual"].stdout + runs["manual"].stderr
    assert "version 1 is challenger, 'kintsugi promote --model-name by-hand' makes it champion" in runs["manual"].stdout
    registry = Registry(Settings(home=state), MANUAL)
    assert registry.champion() is None
    assert registry.aliases() == {CHALLENGER: "1"}
    promoted = kintsugi(state, "promote", "--yes", "--why", "looked at it", "--model-name", MANUAL)
    assert promoted.returncode == 0, promoted.stderr
    assert registry.aliases() == {CHAMPION: "1"}
    assert [entry.why for entry in registry.history()] == ["looked at it"]
    again = kintsugi(state, "promote", "1", "--yes", "--model-name", MANUAL)
    assert "version 1 is champion already" in again.stderr
    none = kintsugi(state, "promote", "--yes", "--model-name", MANUAL)
    assert "has no challenger to promote" in none.stderr


def test_mlflow_shows_every_run_with_its_verdict(runs: Runs, state: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{state / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("kintsugi")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])
    assert [run.data.tags["admitted"] for run in found] == ["true", "false", "false", "true"]
    assert len({run.data.tags["dataset"] for run in found}) == 1  # however many shards it was read in
    first = found[0]
    assert {
        "batch/g_loss",
        "batch/d_loss",
        "batch/d_accuracy",
        "batch/mse",
        "batch/ssim",
        "val/ssim/text",
        "test/ssim",
    } <= set(first.data.metrics)
    assert len(client.get_metric_history(first.info.run_id, "batch/g_loss")) == 3
    artifacts = {file.path for file in client.list_artifacts(first.info.run_id)}
    assert {"generator", "dataset", "images", "evaluation", "bento", "report.html"} <= artifacts


def test_the_bento_holds_no_torch_and_says_where_it_came_from(runs: Runs, state: Path, pair: tuple[Path, Path]) -> None:
    kintsugi(state, "inpaint", str(pair[0]), "--mask", str(pair[1]), "-o", str(pair[0].with_name("out.png")))
    (bento,) = (state / "bentoml" / "bentos" / "kintsugi").glob("v1-*")
    pins = (bento / "env" / "python" / "requirements.txt").read_text()
    assert "onnxruntime==" in pins
    assert not any(name in pins for name in ("torch", "mlflow", "kfp"))
    provenance = json.loads((bento / "src" / "model" / "provenance.json").read_text())
    assert provenance["version"] == "1"
    assert len(provenance["digest"]) == len(provenance["dataset"]) == 64


def test_inpaint_repairs_one_picture_without_a_server(runs: Runs, state: Path, pair: tuple[Path, Path]) -> None:
    image, mask = pair
    output = image.with_name("out.png")
    result = kintsugi(state, "inpaint", str(image), "--mask", str(mask), "-o", str(output))
    assert result.returncode == 0, result.stderr
    original, repaired, holes = read_image(image), read_image(output), read_image(mask)[..., 0]
    assert np.array_equal(repaired[holes == 0], original[holes == 0])
    assert np.abs(repaired[holes > 0].astype(int) - original[holes > 0]).mean() < 15


@pytest.fixture
def server(runs: Runs, state: Path) -> Iterator[tuple[str, int]]:
    """``kintsugi serve`` on a free port: its address and its process."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "serve", "--port", str(port)],
        env=environment(state), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{url}/readyz").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url, process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_the_server_repairs_exactly_and_loads_no_torch(server: tuple[str, int], pair: tuple[Path, Path]) -> None:
    import psutil

    url, pid = server
    files = {name: path.read_bytes() for name, path in zip(("image", "mask"), pair, strict=True)}
    answer = httpx.post(f"{url}/inpaint", files=files, timeout=60)
    assert answer.status_code == 200
    original, holes = read_image(pair[0]), read_image(pair[1])[..., 0]
    assert np.array_equal(decode_image(answer.content)[holes == 0], original[holes == 0])
    assert httpx.get(f"{url}/model").json()["version"] == answer.headers["x-model-version"] == "1"
    small = encode_png(original[:10, :10])
    wrong = httpx.post(f"{url}/inpaint", files={"image": small, "mask": files["mask"]})
    assert wrong.status_code == 422
    process = psutil.Process(pid)
    mapped = {file.path for p in [process, *process.children(recursive=True)] for file in p.memory_maps()}
    assert any("onnxruntime" in path or "openvino" in path for path in mapped)
    assert not any("libtorch" in path for path in mapped)


def test_a_second_server_on_the_same_port_says_so(server: tuple[str, int], state: Path) -> None:
    port = server[0].rpartition(":")[2]
    result = kintsugi(state, "serve", "--port", port)
    assert result.returncode == 2
    assert "choose another --port" in result.stderr


def test_models_lists_versions_and_rollback_needs_a_previous_one(runs: Runs, state: Path) -> None:
    listed = kintsugi(state, "models").stdout
    assert "champion" in listed
    assert "0.9" in listed
    result = kintsugi(state, "rollback", "--yes")
    assert result.returncode == 2
    assert "no previous champion" in result.stderr


def test_the_run_executed_the_compiled_file(runs: Runs, state: Path, tmp_path: Path) -> None:
    compiled = tmp_path / "kintsugi.yaml"
    assert kintsugi(state, "compile", "-o", str(compiled)).returncode == 0
    executed = next((state / "runs").glob("*/kintsugi.yaml"))
    assert executed.read_text() == compiled.read_text()
    spec = next(yaml.safe_load_all(compiled.read_text()))
    assert "train_steps (default 1000): optimiser steps" in spec["pipelineInfo"]["description"]


def test_a_running_server_takes_the_next_champion(
    server: tuple[str, int], state: Path, pair: tuple[Path, Path]
) -> None:
    """The last test of the file, for it makes history: the same export as a second version."""
    url, settings = server[0], Settings(home=state)
    before = httpx.get(f"{url}/model").json()["served_since"]
    registry = Registry(settings, "kintsugi")
    champion = registry.champion()
    assert champion is not None
    decision = champion.decision.model_copy(update={"champion": champion.number}).model_dump_json()
    tags = {name: value for name, value in champion.tags.items() if name != "promoted_at"}
    second = registry.register(champion.run_id, tags | {"digest": "e" * 64, "decision": decision})
    registry.promote(second.number)
    files = {name: path.read_bytes() for name, path in zip(("image", "mask"), pair, strict=True)}
    deadline = time.monotonic() + 120
    while httpx.get(f"{url}/model").json()["served_since"] == before:
        assert time.monotonic() < deadline
        assert httpx.post(f"{url}/inpaint", files=files, timeout=60).status_code == 200
    assert httpx.get(f"{url}/model").json()["last_refused"] is None
    (models,) = (state / "models" / "kintsugi").glob(f"kintsugi-v{second.number}-*")
    assert json.loads((models.parent / "current.json").read_text())["model"] == models.name
