"""Trainings that are killed, stopped, led astray or spread over processes: nothing is lost, nothing differs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.config import PipelineConfig, Settings
from components.inpainting.batches import Batch
from components.train import TrainingDiverged
from components.train.loop import AdversarialLoop, StepLosses
from tests.conftest import SHORTEST, wait_for
from tests.training import train_model

KILLS = int(os.environ.get("KINTSUGI_TEST_KILLS", "6"))
STEPS = max(16, 8 * KILLS // 3)  # a kill costs a step or two
SHORT = {**SHORTEST, "train_steps": STEPS}


def start(dataset: Path, home: Path, kills: int = 0, **changes: object) -> subprocess.Popen[str]:
    assignments = [f"{name}={value}" for name, value in {**SHORT, **changes}.items()]
    arguments = [dataset, home, home / "output", kills, 0, *assignments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "KINTSUGI_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.killing", *map(str, arguments)],
        env=environment | {"GOMP_SPINCOUNT": "20000"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == code, output
    return output


@pytest.fixture(scope="module")
def undisturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of a training that nobody disturbed."""
    home = tmp_path_factory.mktemp("undisturbed")
    finish(start(small, home))
    return home / "output" / "model"


def assert_same(model: Path, undisturbed: Path) -> None:
    for name in ("generator.safetensors", "history.jsonl"):
        assert (model / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert sorted(p.name for p in (model / "samples").iterdir()) == sorted(
        p.name for p in (undisturbed / "samples").iterdir()
    )


@pytest.mark.slow
def test_killed_again_and_again_it_ends_bitwise_the_same(small: Path, undisturbed: Path, tmp_path: Path) -> None:
    output = finish(start(small, tmp_path, kills=KILLS))
    assert "killed at step-" in output
    assert "going on from the checkpoint of step" in output
    assert_same(tmp_path / "output" / "model", undisturbed)
    assert_logged_once(tmp_path)
    before = list(tmp_path.glob("training/*/step-*"))
    output = finish(start(small, tmp_path))  # the pod died after it ended, before its model was uploaded
    assert f"going on from the checkpoint of step {STEPS}" in output
    assert_same(tmp_path / "output" / "model", undisturbed)
    assert_logged_once(tmp_path)
    assert list(tmp_path.glob("training/*/step-*")) == before


def assert_logged_once(home: Path) -> None:
    """One MLflow run, finished, with every line of the history once."""
    from mlflow import MlflowClient

    client = MlflowClient(Settings(home=home).mlflow_uri)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED"
    for name, expected in (("batch/g_loss", range(2, STEPS + 1, 2)), ("val/psnr/box", range(0, STEPS + 1, 8))):
        logged = Counter(metric.step for metric in client.get_metric_history(run.info.run_id, name))
        assert logged == dict.fromkeys(expected, 1), name


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_writes_a_checkpoint_and_goes_on_later(
    number: signal.Signals, small: Path, undisturbed: Path, tmp_path: Path
) -> None:
    process = start(small, tmp_path, train_checkpoint_interval=3600)
    wait_for(tmp_path, "training/*/step-00000000-*")
    time.sleep(0.5)
    os.killpg(process.pid, number)
    output = finish(process, 128 + number)
    assert "the same run goes on from there" in output
    assert not (tmp_path / "output" / "model").exists()
    stopped = max(int(path.name[5:13]) for path in tmp_path.glob("training/*/step-*"))
    output = finish(start(small, tmp_path, train_checkpoint_interval=3600))
    assert f"going on from the checkpoint of step {stopped}" in output
    assert_same(tmp_path / "output" / "model", undisturbed)


def in_process(small: Path, settings: Settings, folder: Path, **changes: object) -> Path:
    return train_model(PipelineConfig.from_flat({**SHORT, **changes}), small, folder, settings)


def poison(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Let the pictures of some steps, counted over all attempts, be no numbers."""
    step, taken = AdversarialLoop.step, iter(range(10_000))

    def poisoned(self: AdversarialLoop, batch: Batch) -> StepLosses:
        if next(taken) in steps:
            batch = replace(batch, truth=batch.truth * float("nan"))
        return step(self, batch)

    monkeypatch.setattr(AdversarialLoop, "step", poisoned)


def test_once_astray_it_goes_back_and_on_with_a_lower_rate(
    small: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poison(monkeypatch, 7)
    model = in_process(small, settings, tmp_path)
    assert "is no finite number; going back to step 7 with 0.3 of the learning rate" in capsys.readouterr().out
    assert all(tensor.isfinite().all() for tensor in load_file(model / "generator.safetensors").values())
    rows = [json.loads(line) for line in (model / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(2, STEPS + 1, 2))


def test_astray_twice_it_stops_and_hands_on_nothing(
    small: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 7, 12)
    with pytest.raises(TrainingDiverged, match=r"astray twice, and no model is handed on.*Lower train_learning_rate"):
        in_process(small, settings, tmp_path)
    assert not list(tmp_path.glob("*model*"))


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_joint_batch(
    small: Path, two_processes: Path, settings: Settings, tmp_path: Path
) -> None:
    one = in_process(small, settings, tmp_path / "one", **SHORTEST)
    alone, together = (load_file(model / "generator.safetensors") for model in (one, two_processes))
    assert alone.keys() == together.keys()
    moved = max(tensor.abs().max().item() for name, tensor in alone.items() if name.endswith("head.weight"))
    assert moved > 1e-4
    assert all(torch.allclose(tensor, together[name], atol=moved / 100) for name, tensor in alone.items())


@pytest.mark.slow
def test_when_a_process_dies_all_start_again_from_the_newest_checkpoint(small: Path, tmp_path: Path) -> None:
    import psutil

    process = start(small, tmp_path, train_num_processes=2)
    wait_for(tmp_path, "training/*/step-00000003-*")
    workers = [
        child for child in psutil.Process(process.pid).children(recursive=True)
        if "components.train.worker" in child.cmdline() and "torch.distributed.run" not in child.cmdline()
    ]  # fmt: skip
    assert len(workers) == 2
    workers[1].kill()
    output = finish(process)
    assert "going on from the checkpoint of step" in output
    assert (tmp_path / "output" / "model" / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("everyone", [False, True])  # Kubernetes signals the first process alone, a terminal all
def test_two_processes_asked_to_stop_write_a_checkpoint_and_go_on_later(
    everyone: bool, small: Path, tmp_path: Path
) -> None:
    import psutil

    process = start(small, tmp_path, train_num_processes=2, train_steps=60)
    wait_for(tmp_path, "training/*/step-00000003-*")
    asked_at = time.monotonic()
    (attempt,) = psutil.Process(process.pid).children()
    os.killpg(process.pid, signal.SIGTERM) if everyone else attempt.send_signal(signal.SIGTERM)
    output = finish(process, 128 + signal.SIGTERM)
    assert time.monotonic() - asked_at < 10
    assert "the same run goes on from there" in output
    stopped = max(int(path.name[5:13]) for path in tmp_path.glob("training/*/step-*"))
    output = finish(start(small, tmp_path, train_num_processes=2, train_steps=60))
    assert f"going on from the checkpoint of step {stopped}" in output
    assert (tmp_path / "output" / "model" / "manifest.json").exists()
