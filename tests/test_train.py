from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from components.config import PipelineConfig, Settings
from components.inpainting.batches import Batches
from components.inpainting.dataset import Shards
from components.inpainting.images import read_image
from components.inpainting.networks import load_generator
from components.manifest import read_manifest
from components.train import TrainingDiverged, paper_line, train
from components.train.loop import AdversarialLoop
from components.train.recipes import RECIPES

CPU = torch.device("cpu")


def config(**train: object) -> PipelineConfig:
    defaults = {"batch_size": 4, "log_interval": 2, "sample_interval": 4}
    return PipelineConfig.from_flat({f"train_{name}": value for name, value in (defaults | train).items()})


def trained(settings: Settings, dataset: Path, folder: Path, **changes: object) -> Path:
    chosen = config(**changes)
    train(chosen.train, chosen.run, dataset, dataset.with_name("card.html"), folder / "model", settings)
    return folder / "model"


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


def test_the_same_seed_trains_the_same_weights(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    digests = {
        name: (trained(settings, dataset, tmp_path / name, steps=3, seed=seed) / "generator.safetensors").read_bytes()
        for name, seed in (("one", 0), ("again", 0), ("other", 1))
    }
    assert digests["one"] == digests["again"] != digests["other"]


def test_no_steps_hand_on_the_untrained_generator(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    model = trained(settings, dataset, tmp_path, steps=0)
    assert read_manifest(model, "model").facts["steps"] == 0
    weights = load_generator(model).state_dict()["head.weight"]
    assert torch.count_nonzero(weights) == 0


def test_divergence_is_an_error_and_leaves_no_model(
    settings: Settings, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = AdversarialLoop.step

    def explode(self: AdversarialLoop, truth: torch.Tensor, mask: torch.Tensor) -> object:
        return step(self, truth * float("nan"), mask)

    monkeypatch.setattr(AdversarialLoop, "step", explode)
    with pytest.raises(TrainingDiverged, match="lower train_learning_rate"):
        trained(settings, dataset, tmp_path, steps=4)
    assert not list(tmp_path.glob("*model*"))


@pytest.mark.parametrize("name", RECIPES)
def test_training_lowers_the_error_on_one_batch(name: str) -> None:
    torch.manual_seed(0)
    loop = AdversarialLoop(config(model=name, steps=40, learning_rate=0.002).train, 32, CPU)
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 32), torch.linspace(0, 6, 32), indexing="ij")
    truth = (torch.stack([rows.sin(), columns.cos(), (rows + columns).sin()]).expand(4, 3, 32, 32) + 1) / 2
    mask = torch.zeros(4, 1, 32, 32)
    mask[..., 8:20, 10:22] = 1
    scores = [loop.step(truth, mask).scores()["mse"] for _ in range(40)]
    assert np.mean(scores[-5:]) < 0.7 * np.mean(scores[:3])


def test_the_discriminator_is_trained_on_half_batches() -> None:
    loop = AdversarialLoop(config(model="context_encoder", steps=1).train, 32, CPU)
    seen = []
    loop.discriminator.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    loop.step(torch.rand(8, 3, 32, 32), torch.ones(8, 1, 32, 32))
    assert seen == [4, 4, 8]  # real half, repaired half, and the generator's whole batch


def test_batches_are_seeded_and_give_every_picture_its_own_mask(photographs: list[np.ndarray]) -> None:
    images = np.stack([photo[:32, :32] for photo in photographs])
    masks = (np.random.default_rng(0).random((64, 32, 32)) < 0.2).astype(np.uint8)
    draws = [Batches(Shards([images]), masks, CPU, seed=seed).draw(16) for seed in (0, 0, 1)]
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][0], draws[2][0])
    image, mask = draws[0]
    assert image.shape == (16, 3, 32, 32)
    assert 0 <= image.min() <= image.max() <= 1
    assert len({m.numpy().tobytes() for m in mask}) > 8


def test_shuffled_colours_keep_structure(photographs: list[np.ndarray]) -> None:
    image = photographs[0][None, :32, :32]
    batches = Batches(Shards([image]), np.ones((1, 32, 32), np.uint8), CPU, seed=0, shuffle_colours=True)
    drawn = torch.cat([batches.draw(2)[0] for _ in range(20)])
    spread = torch.from_numpy(image / 255).std(dim=(1, 2)).sort().values[0]
    assert torch.allclose(drawn.std(dim=(2, 3)).sort(dim=1).values, spread.float(), atol=1e-3)
    assert len({d.mean().item() for d in drawn.round(decimals=5)}) > 1


def test_the_line_is_the_papers() -> None:
    line = paper_line({"d_loss": 0.5, "d_accuracy": 0.875, "g_loss": 1.25, "mse": 0.0125, "ssim": 0.95})
    assert line == "[D loss: 0.5000, acc: 87.50%] [G loss: 1.2500, mse: 0.01250, ssim: 0.9500]"
