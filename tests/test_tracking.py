from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from components.config import RunConfig, Settings, TrainConfig
from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Bytes
from components.manifest import Manifest
from components.tracking import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    Registry,
    RegistryError,
    Run,
    TrackingError,
    open_run,
    start_run,
    sync,
)
from components.tracking.system import system_metrics
from tests.registered import pack, servable


@pytest.fixture
def manifest(dataset: Path) -> Manifest:
    return PreparedDataset.open(dataset).manifest


@pytest.fixture
def run(settings: Settings, manifest: Manifest, tmp_path: Path) -> Run:
    """A finished run with a model folder."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model": "mender"}')
    (model / "generator.safetensors").write_bytes(b"weights")
    with start_run(settings, RunConfig(), TrainConfig(), manifest) as run:
        run.log_model_folder(model)
    return run


def status(settings: Settings, run: Run) -> str:
    return str(MlflowClient(settings.mlflow_uri).get_run(run.id).info.status)


def steps(settings: Settings, run_id: str, key: str) -> list[int]:
    return [metric.step for metric in MlflowClient(settings.mlflow_uri).get_metric_history(run_id, key)]


def test_a_run_records_parameters_dataset_metrics_and_pictures(
    settings: Settings, manifest: Manifest, tmp_path: Path, photographs: list[Bytes]
) -> None:
    page, picture = tmp_path / "data", photographs[0]
    page.write_text("<p>card")
    with start_run(settings, RunConfig(), TrainConfig(), manifest) as run:
        run.log_metrics({"g_loss": 0.5, "val/ssim/box": 0.9}, step=3)
        run.log_image(picture, "val/0_box", 3)
        run.log_page(page, "dataset/card.html")
        run.set_tags({"precision": "fp32"})
    client = MlflowClient(settings.mlflow_uri)
    found = client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert found.data.params["hp.steps"] == "1000"
    assert {k: v for k, v in found.data.metrics.items() if "system/" not in k} == {"g_loss": 0.5, "val/ssim/box": 0.9}
    assert found.inputs is not None
    assert found.inputs.dataset_inputs[0].dataset.digest == manifest.digest[:32]
    assert (found.data.tags["dataset"], found.data.tags["precision"]) == (manifest.digest, "fp32")
    assert found.info.artifact_uri.startswith(f"file://{settings.state}")
    artifacts = Path(found.info.artifact_uri.removeprefix("file://"))
    assert (artifacts / "dataset/card.html").read_text() == "<p>card"
    png, webp = sorted((artifacts / "images").iterdir(), key=lambda path: path.suffix)
    assert png.name.startswith("val~0_box+step+3+timestamp+") and webp.name == f"{png.stem}+compressed.webp"
    assert np.array_equal(np.asarray(Image.open(png)), picture)
    assert max(Image.open(webp).size) == 256
    assert not any((settings.state / "journals").iterdir())


@pytest.mark.parametrize(
    ("run", "train", "name"),
    [
        (RunConfig(), TrainConfig(steps=7), r"residual_unet 7 steps \d\d [A-Z][a-z]{2} \d\d:\d\d:\d\d"),
        (RunConfig(), TrainConfig(quality="realism"), r"residual_unet realism 1000 steps \d\d .*"),
        (RunConfig(name="faces"), TrainConfig(), r"faces-\d{8}-\d{6}"),
    ],
)
def test_a_run_is_named_after_what_is_trained_unless_somebody_named_it(
    run: RunConfig, train: TrainConfig, name: str, settings: Settings, manifest: Manifest
) -> None:
    with start_run(settings, run, train, manifest) as started:
        pass
    assert re.fullmatch(name, str(MlflowClient(settings.mlflow_uri).get_run(started.id).info.run_name))


def test_pictures_are_named_as_mlflow_names_them(run: Run, settings: Settings) -> None:
    """Of its own pictures and ours MLflow's image grid must make the same."""
    picture = np.zeros((8, 6, 3), np.uint8)
    open_run(settings, run.id).log_image(picture, "val/0_box", 3)
    client = MlflowClient(settings.mlflow_uri)
    ours = sorted(file.path for file in client.list_artifacts(run.id, "images"))
    tags = client.get_run(run.id).data.tags
    client.log_image(run.id, picture, key="val/0_box", step=3, synchronous=True)
    theirs = sorted({file.path for file in client.list_artifacts(run.id, "images")} - set(ours))
    assert len(ours) == len(theirs) == 2
    for our, their in zip(ours, theirs, strict=True):
        assert our.split("+")[:4] == their.split("+")[:4]
        assert [len(part) for part in our.split("+")] == [len(part) for part in their.split("+")]
    assert client.get_run(run.id).data.tags == tags


@pytest.mark.parametrize(("error", "expected"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_broken_run_is_closed_as_what_it_is(
    error: type[BaseException], expected: str, run: Run, settings: Settings, manifest: Manifest
) -> None:
    with pytest.raises(error), start_run(settings, RunConfig(), TrainConfig(), manifest) as broken:
        raise error
    assert (status(settings, broken), status(settings, run)) == (expected, "FINISHED")


def test_an_injected_run_is_resumed_and_left_open(
    run: Run, settings: Settings, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(settings.mlflow_uri)
    injected = client.create_run(client.get_run(run.id).info.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with start_run(settings, RunConfig(), TrainConfig(), manifest) as resumed:
        assert resumed.id == injected
    assert status(settings, resumed) == "RUNNING"
    monkeypatch.delenv("MLFLOW_RUN_ID")
    assert open_run(settings, "", resumed.uid).id == injected


def test_an_interrupted_training_goes_on_in_its_run(settings: Settings, manifest: Manifest, tmp_path: Path) -> None:
    place = tmp_path / "journal"
    with pytest.raises(ValueError), start_run(settings, RunConfig(), TrainConfig(), manifest, place) as first:
        for step in range(0, 40, 10):
            first.log_metrics({"g_loss": step}, step)
            first.log_image(np.zeros((8, 8, 3), np.uint8), "val/0_box", step)
        raise ValueError
    assert status(settings, first) == "FAILED"
    assert sync(settings) == 0
    assert status(settings, first) == "FAILED"
    longer = TrainConfig(steps=2000)  # MLflow refuses other values of a parameter
    with start_run(settings, RunConfig(), longer, manifest, place) as second:
        for step in range(20, 60, 10):
            second.log_metrics({"g_loss": -step}, step)
            second.log_image(np.zeros((8, 8, 3), np.uint8), "val/0_box", step)
    assert (second.uid, second.id, status(settings, second)) == (first.uid, first.id, "FINISHED")
    assert steps(settings, second.id, "g_loss") == [0, 10, 20, 30, 40, 50]
    client = MlflowClient(settings.mlflow_uri)
    assert len(client.list_artifacts(second.id, "images")) == 12
    with start_run(settings, RunConfig(), longer, manifest, place) as retried:
        pass
    assert (retried.id, status(settings, retried)) == (first.id, "FINISHED")
    shutil.rmtree(place)
    with start_run(settings, RunConfig(), TrainConfig(), manifest, place) as third:
        pass
    assert third.id != second.id


TRAINING = """
import sys, time
from pathlib import Path
import numpy as np
from components.config import RunConfig, Settings, TrainConfig
from components.manifest import Manifest
from components.tracking import start_run

home, place, first, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
manifest = Manifest(kind="dataset", digest="d" * 64, code_version="", facts={"source": "sample"})
with start_run(Settings(home=home), RunConfig(), TrainConfig(), manifest, place) as run:
    for step in range(first, last):
        run.log_metrics({"g_loss": step + time.time() % 1, "d_loss": step}, step)
        run.log_metrics({"val/ssim/box": step}, step)
        if step % 10 == 0:
            run.log_image(np.full((8, 8, 3), step % 256, np.uint8), "val/0_box", step)
        print(step, flush=True)
        time.sleep(0.02)
print("done", run.id, flush=True)
"""


def train_until(settings: Settings, place: Path, first: int, stop: int, last: int) -> str:
    """Train in a process of its own, which is killed at step ``stop``; its last line."""
    command = [sys.executable, "-c", TRAINING, str(settings.home), str(place), str(first), str(last)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    line = ""
    for line in child.stdout:
        if line.strip() == str(stop):
            child.send_signal(signal.SIGKILL)
    child.wait()
    return line


def test_a_training_killed_again_and_again_leaves_one_whole_history(
    settings: Settings, manifest: Manifest, tmp_path: Path
) -> None:
    place, kills = tmp_path / "journal", ((0, 30), (10, 31), (25, 300))
    for first, stop in kills:
        train_until(settings, place, first, stop, 400)
    with start_run(settings, RunConfig(), TrainConfig(), manifest) as other:
        pass
    done, run_id = train_until(settings, place, 290, -1, 400).split()
    assert done == "done"
    client = MlflowClient(settings.mlflow_uri)
    found = client.get_run(run_id)
    assert (found.info.status, status(settings, other)) == ("FINISHED", "FINISHED")
    assert len(client.search_runs([found.info.experiment_id])) == 2
    for key in ("g_loss", "d_loss", "val/ssim/box"):
        assert steps(settings, run_id, key) == list(range(400))
    names = [file.path.split("+") for file in client.list_artifacts(run_id, "images")]
    assert sorted(int(name[2]) for name in names if len(name) == 6) == list(range(0, 400, 10))
    assert len(names) == 80
    assert not any((settings.state / "journals").iterdir())


def test_what_a_killed_training_left_is_delivered_and_its_run_closed(settings: Settings, tmp_path: Path) -> None:
    train_until(settings, tmp_path / "journal", 0, 5, 400)
    assert sync(settings) > 0
    (found,) = MlflowClient(settings.mlflow_uri).search_runs(["1"])
    assert found.info.status == "KILLED"
    assert steps(settings, found.info.run_id, "d_loss")[:6] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(TrackingError, match="does not hold all of the run"):
        open_run(settings, found.info.run_id, found.data.tags["kintsugi.uid"])


def test_a_process_killed_while_it_makes_the_store_harms_nobody(settings: Settings) -> None:
    """MLflow itself cannot open a store any more in which some of its tables were made."""
    code = "import sys; from components.config import Settings; from components.tracking import Registry; "
    code += "from pathlib import Path; Registry(Settings(home=Path(sys.argv[1])), 'mender').versions()"
    child = subprocess.Popen([sys.executable, "-c", code, str(settings.home)])
    while child.poll() is None and not any(path.stat().st_size for path in settings.state.glob("mlflow*")):
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert Registry(settings, "mender").versions() == []
    assert not any(settings.state.glob("*.partial"))


def test_two_trainings_in_one_place_are_two_runs(
    settings: Settings, manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "journal"
    with (
        start_run(settings, RunConfig(), TrainConfig(), manifest, place) as one,
        start_run(settings, RunConfig(), TrainConfig(), manifest, place) as two,
    ):
        pass
    assert one.id != two.id
    assert "logged as a run of its own" in capsys.readouterr().out
    assert (status(settings, one), status(settings, two)) == ("FINISHED", "FINISHED")


def test_a_model_without_a_run_is_said_to_be(settings: Settings) -> None:
    with pytest.raises(TrackingError, match="names no run in MLflow"):
        open_run(settings, "")


def test_the_machine_is_watched_under_the_names_that_mlflow_shows() -> None:
    """The steps of a resumed run go on where time is, so its curves do not run backwards."""
    samples: list[tuple[dict[str, float], int]] = []
    enough = threading.Event()

    def log(values: dict[str, float], step: int) -> None:
        samples.append((values, step))
        if len(samples) == 3:
            enough.set()

    with system_metrics(log, started=int(time.time() * 1000) - 5000, interval=0.2):
        assert enough.wait(60)
    names = set(samples[0][0])
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= names
    assert 0 < samples[0][0]["system/system_memory_usage_percentage"] < 100
    numbers = [step for _, step in samples]
    assert numbers[0] >= 25 and numbers == sorted(set(numbers))


def test_registering_twice_makes_one_version(run: Run, settings: Settings) -> None:
    registry = Registry(settings, "mender")
    assert registry.versions() == []
    assert registry.aliased(CHAMPION) is None
    first = registry.register(run.id, {"digest": "a"})
    assert registry.register(run.id, {"digest": "a"}) == first
    second = registry.register(run.id, {"digest": "b"})
    assert [v.number for v in registry.versions()] == [second.number, first.number]
    assert registry.aliases() == {CHALLENGER: second.number}


def test_promotion_compares_and_sets(run: Run, settings: Settings) -> None:
    registry = Registry(settings, "mender")
    one, two, three = (registry.register(run.id, {"digest": d} | servable()).number for d in "abc")
    pack(settings, registry, one, two, three)
    registry.promote(one)
    registry.promote(one)  # a retried step
    with pytest.raises(RegistryError, match=r"compared with no model, but by now version 1 is champion"):
        registry.promote(two)
    registry.tag(two, servable(one))
    registry.promote(two)
    registry.tag(three, servable(one))
    with pytest.raises(RegistryError, match=r"compared with version 1, but by now version 2"):
        registry.promote(three)
    assert registry.aliases() == {CHAMPION: two, PREVIOUS: one, CHALLENGER: three}
    assert registry.get(two).tags["replaced"] == one


def test_going_back_and_forth(run: Run, settings: Settings) -> None:
    registry = Registry(settings, "mender")
    one, two = (registry.register(run.id, {"digest": d} | servable("1" if d == "b" else "")).number for d in "ab")
    pack(settings, registry, one, two)
    registry.promote(one)
    registry.promote(two)
    registry.rollback(one, two, "faces were blurred")
    assert registry.aliases() == {CHAMPION: one, PREVIOUS: two}
    registry.rollback(two, one)  # the rollback of the rollback
    assert registry.aliases() == {CHAMPION: two, PREVIOUS: one}
    told = [(entry.action, entry.version, entry.replaced, entry.why) for entry in registry.history()]
    assert told == [
        ("promote", one, "", ""), ("promote", two, one, ""), ("rollback", one, two, "faces were blurred"),
        ("rollback", two, one, ""),
    ]  # fmt: skip
    assert all(entry.by and entry.at for entry in registry.history())
    never = registry.register(run.id, {"digest": "c"}).number
    with pytest.raises(RegistryError, match=f"version {never} of 'mender' was never champion"):
        registry.rollback(never, two)
    with pytest.raises(RegistryError, match=f"somebody was faster: by now version {two} is champion"):
        registry.rollback(one, never)
    with pytest.raises(RegistryError, match=f"version {one} of 'mender' is champion already"):
        registry.rollback(one, one)


def test_an_alias_that_somebody_moves_decides_nothing(run: Run, settings: Settings) -> None:
    registry = Registry(settings, "mender")
    one, two = (registry.register(run.id, {"digest": d} | servable()).number for d in "ab")
    pack(settings, registry, one, two)
    MlflowClient(settings.mlflow_uri).set_registered_model_alias("mender", CHAMPION, one)
    assert registry.champion() is None
    registry.promote(two)
    MlflowClient(settings.mlflow_uri).set_registered_model_alias("mender", CHAMPION, one)
    champion = registry.champion()
    assert champion and champion.number == two
    assert registry.settle() and registry.aliases()[CHAMPION] == two
    assert not registry.settle()


def test_what_is_not_the_file_that_was_registered_is_refused(run: Run, settings: Settings, tmp_path: Path) -> None:
    registry = Registry(settings, "mender")
    number = registry.register(run.id, {"digest": "a"}).number
    artifacts = Path(str(MlflowClient(settings.mlflow_uri).get_run(run.id).info.artifact_uri).removeprefix("file://"))
    with pytest.raises(RegistryError, match="version 1 of 'mender' has no digest of its generator"):
        registry.download(registry.get(number))
    files = {f"generator/{name}": artifacts / "generator" / name for name in ("config.json", "generator.safetensors")}
    registry.record(number, files)
    version = registry.get(number)
    assert sorted(version.files) == sorted(files)
    assert (registry.download(version) / "config.json").read_bytes() == files["generator/config.json"].read_bytes()
    assert registry.download(version, "generator/config.json", tmp_path).parent.is_relative_to(tmp_path)
    files["generator/config.json"].write_text("{}")
    for path in ("generator", "generator/config.json"):
        with pytest.raises(RegistryError, match=r"is refused: its generator/config.json has the digest 44136fa355b3, "):
            registry.download(version, path)
    registry.download(version, "generator/generator.safetensors")
    files["generator/config.json"].unlink()
    with pytest.raises(RegistryError, match=r"is refused: its generator/config.json has the digest none, "):
        registry.download(version)


def test_unknown_versions_and_lost_files_are_named(run: Run, settings: Settings) -> None:
    registry = Registry(settings, "mender")
    version = registry.register(run.id, {"digest": "a"})
    with pytest.raises(RegistryError, match="no version 9; it has 1"):
        registry.get("9")
    with pytest.raises(RegistryError, match="has lost its bento"):
        registry.download(version, "bento/kintsugi.bento")
