from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from components.config import PipelineConfig, Settings
from components.hardware import Compute, Device
from components.inpainting.batches import Batch
from components.inpainting.images import read_image
from components.inpainting.networks import load_generator
from components.manifest import read_manifest
from components.tracking import open_run
from components.train.loop import AdversarialLoop
from components.train.recipes import RECIPES
from components.train.recorder import paper_line
from tests.training import run_of, train_model

CPU = Compute(Device(torch.device("cpu"), "CPU"), precision="fp32", compile="off", channels_last=True)


def config(**train: object) -> PipelineConfig:
    defaults = {"batch_size": 4, "log_interval": 2, "sample_interval": 4}
    return PipelineConfig.from_flat({f"train_{name}": value for name, value in (defaults | train).items()})


def trained(settings: Settings, dataset: Path, folder: Path, **changes: object) -> Path:
    return train_model(config(**changes), dataset, folder, settings)


def make_loop(**changes: object) -> AdversarialLoop:
    return AdversarialLoop(config(**{"steps": 10, **changes}).train, 32, CPU)


def some_batch(size: int, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    truth, mask = torch.rand(size, 3, 32, 32, generator=random), torch.zeros(size, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    return Batch(truth, mask, truth * (1 - mask), mask)


def shown(loop: AdversarialLoop, mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(mask) if loop.generator.blind else mask


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_leaves_model_history_and_sample_grids(
    name: str, settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    model = trained(settings, dataset, tmp_path, model=name, steps=6)
    load_generator(model)
    rows = [json.loads(line) for line in (model / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert set(rows[0]) == {"step", "d_loss", "d_accuracy", "g_loss", "mse", "ssim"}
    grids = sorted(path.name for path in (model / "samples").iterdir())
    assert grids == ["step-000000.png", "step-000004.png", "step-000006.png"]
    assert read_image(model / "samples" / grids[0]).std() > 20
    assert read_manifest(model, "model").facts["steps"] == 6
    report = (tmp_path / "model.html").read_text()
    assert f"Training of {name}, 6 steps" in report and "SSIM" in report
    assert report.count("data:image/png;base64,") == 3 and "http" not in report


def test_the_same_seed_trains_the_same_weights(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    digests = {
        name: (trained(settings, dataset, tmp_path / name, steps=3, seed=seed) / "generator.safetensors").read_bytes()
        for name, seed in (("one", 0), ("again", 0), ("other", 1))
    }
    assert digests["one"] == digests["again"] != digests["other"]


def test_a_run_that_kubeflow_made_for_the_step_and_ours_are_one(
    settings: Settings, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubeflow 2.17 makes a run for every task, names it in the environment, logs into it at the end and closes it."""
    settings.make_state()
    client = MlflowClient(settings.mlflow_uri)
    experiment = client.create_experiment("Kubeflow's", str(tmp_path / "artifacts"))
    parent = client.create_run(experiment).info.run_id
    of_train, of_evaluate = (
        client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id for _ in range(2)
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow_uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    monkeypatch.setenv("MLFLOW_RUN_ID", of_train)
    model = trained(settings, dataset, tmp_path, steps=2)
    trained_run = client.get_run(of_train)
    assert trained_run.info.status == "RUNNING" and "batch/g_loss" in trained_run.data.metrics
    assert run_of(model, settings) == of_train

    inputs = [Param(name, json.dumps({"steps": 2})) for name in ("config", "run_config", "train_steps")]
    client.log_batch(
        of_train, params=inputs, metrics=[Metric("ssim", 0.9, 0, 0)]
    )  # MLflow refuses to change a parameter
    client.set_terminated(of_train)
    monkeypatch.setenv("MLFLOW_RUN_ID", of_evaluate)
    open_run(settings, of_train).log_metrics({"test_ssim": 0.9})
    assert client.get_run(of_train).data.metrics["test_ssim"] == 0.9
    assert client.get_run(of_train).info.status == "FINISHED"
    assert not client.get_run(of_evaluate).data.metrics
    assert {run.info.run_id for run in client.search_runs([experiment, "0"])} == {parent, of_train, of_evaluate}


def test_no_steps_hand_on_the_untrained_generator(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    model = trained(settings, dataset, tmp_path, steps=0)
    assert read_manifest(model, "model").facts["steps"] == 0
    assert "<svg" not in (tmp_path / "model.html").read_text()
    weights = load_generator(model).state_dict()["refiner.unet.head.weight"]
    assert torch.count_nonzero(weights) == 0


@pytest.mark.parametrize("name", RECIPES)
def test_training_lowers_the_error_on_one_batch(name: str) -> None:
    loop = make_loop(model=name, steps=60, learning_rate=0.002)
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 32), torch.linspace(0, 6, 32), indexing="ij")
    truth = (torch.stack([rows.sin(), columns.cos(), (rows + columns).sin()]).expand(4, 3, 32, 32) + 1) / 2
    mask = torch.zeros(4, 1, 32, 32)
    mask[..., 8:20, 10:22] = 1
    blanked = truth * (1 - mask)
    batch = Batch(
        truth, mask, loop.generator.fill(blanked, mask) if loop.generator.fill else blanked, shown(loop, mask)
    )
    scores = [loop.step(batch).scores()["mse"] for _ in range(60)]
    assert np.mean(scores[-5:]) < 0.7 * np.mean(scores[:3])


def test_the_discriminator_is_trained_on_half_batches() -> None:
    loop = make_loop(model="context_encoder")
    seen = []
    loop.discriminator.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    loop.step(some_batch(8))
    assert seen == [4, 4, 8]  # real half, repaired half, and the generator's whole batch


def test_realism_trains_the_discriminator_on_whole_batches_in_pairs() -> None:
    loop = make_loop(quality="realism", adversarial_weight=0.2)
    seen = []
    loop.discriminator.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    loop.step(some_batch(8))
    assert seen == [8, 8, 8, 8]  # truths and repairs, and for the generator repairs and truths


def test_realism_learns_within_a_hundred_steps_to_tell_a_blur_and_to_sharpen_it() -> None:
    random = torch.Generator().manual_seed(0)
    loop = make_loop(quality="realism", adversarial_weight=0.2, steps=100)
    fill = loop.generator.fill
    assert fill is not None

    def batch() -> Batch:
        """Stripes of any direction and phase, whose fill is a blur."""
        angle, phase = torch.rand(2, 8, 1, 1, 1, generator=random) * 6.3
        rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
        truth = (1 + (1.5 * (angle.cos() * rows + angle.sin() * columns) + phase).sin()).expand(8, 3, 32, 32) / 2
        mask = torch.zeros(8, 1, 32, 32)
        mask[..., 10:22, 10:22] = 1
        return Batch(truth, mask, fill(truth * (1 - mask), mask), mask)

    def roughness(pictures: torch.Tensor) -> float:
        return pictures[..., 12:20, 12:20].diff(dim=3).square().mean().item()

    losses = [loop.step(batch()) for _ in range(100)]
    assert np.mean([step.d_accuracy for step in losses[20:60]]) > 0.75
    first, last = losses[0], losses[-1]
    assert roughness(first.repair) < 0.5 * roughness(first.batch.truth)
    assert roughness(last.repair) > 2 * roughness(last.batch.start)


def test_realism_hands_on_a_generator_that_does_not_average_with_the_mirror_picture() -> None:
    realistic, faithful = make_loop(quality="realism").result, make_loop().result
    assert (realistic.settings["mirrored"], faithful.settings["mirrored"]) == (False, True)


def test_a_state_put_back_goes_on_bit_for_bit() -> None:
    loop = make_loop(model="context_encoder", steps=6)  # dropout and batch normalisation, all that can drift
    batches = [some_batch(4, seed) for seed in range(6)]
    for batch in batches[:3]:
        loop.step(batch)
    state = loop.state([])
    for batch in batches[3:]:
        loop.step(batch)
    undisturbed = loop.state([])
    loop.restore(state)
    for batch in batches[3:]:
        loop.step(batch)
    again = loop.state([])
    assert undisturbed.num_steps == again.num_steps == 6
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in undisturbed.tensors.items())


def test_warming_up_leaves_no_trace() -> None:
    loop = make_loop()
    before = loop.state([])
    loop.warm_up(some_batch(4))
    after = loop.state([])
    assert before.num_steps == after.num_steps == 0
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(tensor, after.tensors[name]) for name, tensor in before.tensors.items())


def test_the_line_is_the_papers() -> None:
    line = paper_line({"d_loss": 0.5, "d_accuracy": 0.875, "g_loss": 1.25, "mse": 0.0125, "ssim": 0.95})
    assert line == "[D loss: 0.5000, acc: 87.50%] [G loss: 1.2500, mse: 0.01250, ssim: 0.9500]"
