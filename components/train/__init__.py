"""The train step: a dataset in, a generator out, its history and sample pictures beside it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np

from components.config import RunConfig, Settings, TrainConfig
from components.hardware import choose_device
from components.inpainting.batches import Batches
from components.inpainting.dataset import PreparedDataset
from components.inpainting.networks import save_generator
from components.manifest import Draft, complete_folder
from components.progress import Bar, say, step
from components.tracking import Run, start_run
from components.train.loop import AdversarialLoop
from components.train.samples import Samples

KIND = "model"
_MASK_BANK = 2048  # training masks; flips and turns make eight of each


class TrainingDiverged(ValueError):
    """The losses are no numbers any more."""


@step("train")
def train(
    config: TrainConfig, run_config: RunConfig, dataset: Path, card: Path, model: Path, settings: Settings
) -> dict[str, float]:
    """Train a generator on a dataset folder and write a model folder; returns the last line of its log.

    The dataset's ``card`` (HTML) is filed with the run in MLflow.

    The model folder holds ``config.json``, ``generator.safetensors``, ``history.jsonl`` (the log, one
    row per interval) and ``samples/step-*.png``. Raises ``TrainingDiverged`` rather than hand on a
    model whose losses are not finite.
    """
    data = PreparedDataset.open(dataset)
    with start_run(settings, run_config, config, data.manifest) as run:
        run.log_page(card, "dataset/card.html")
        with complete_folder(model, KIND) as draft:
            draft.made_from = {"dataset": data.manifest.digest}
            scores = _train(config, data, draft, run)
        run.log_model_folder(model)
    return scores


def _train(config: TrainConfig, data: PreparedDataset, draft: Draft, run: Run) -> dict[str, float]:
    device = choose_device()
    say(f"training {config.model} for {config.steps} steps on {device.description}")
    loop = AdversarialLoop(config, data.image_size, device.torch)
    batches = _batches(config, data, loop)
    samples = Samples(data, draft.path / "samples", run)
    started = time.monotonic()
    scores: dict[str, float] = {}
    samples.take(loop.result, 0)
    with Bar("train", config.steps) as bar, (draft.path / "history.jsonl").open("w") as history:
        for number in range(1, config.steps + 1):
            losses = loop.step(*batches.draw(config.batch_size))
            bar.advance()
            if number % config.log_interval == 0 or number == config.steps:
                scores = losses.scores()
                _refuse_divergence(scores, number)
                say(f"{number} {paper_line(scores)}")
                history.write(json.dumps({"step": number, **scores}) + "\n")
                run.log_metrics({f"batch/{name}": value for name, value in scores.items()}, number)
            if number % config.sample_interval == 0 or number == config.steps:
                samples.take(loop.result, number)
    save_generator(loop.result, draft.path)
    draft.facts = {
        "model": config.model,
        "steps": loop.num_steps,
        "seconds": round(time.monotonic() - started, 1),
        "device": device.description,
        "run_id": run.id,
    }
    return scores


def paper_line(scores: dict[str, float]) -> str:
    """The line that the paper prints per iteration; MSE is of the hole, on [0, 1] data."""
    return (
        f"[D loss: {scores['d_loss']:.4f}, acc: {100 * scores['d_accuracy']:.2f}%] "
        f"[G loss: {scores['g_loss']:.4f}, mse: {scores['mse']:.5f}, ssim: {scores['ssim']:.4f}]"
    )


def _batches(config: TrainConfig, data: PreparedDataset, loop: AdversarialLoop) -> Batches:
    masks = data.mixture.draw(_MASK_BANK, np.random.default_rng([config.seed, 3]))
    device = next(loop.generator.parameters()).device
    images = data.split("train").images
    return Batches(images, masks, device, config.seed, shuffle_colours=loop.recipe.shuffle_colours)


def _refuse_divergence(scores: dict[str, float], step_number: int) -> None:
    if not all(math.isfinite(value) for value in scores.values()):
        raise TrainingDiverged(
            f"training diverged at step {step_number} (a loss is no finite number); lower train_learning_rate"
        )
