"""The paper's context encoder for the evaluation's tables, from a training that MLflow holds."""

from __future__ import annotations

import numpy as np

from components.config import Settings
from components.evaluate.repairing import judged
from components.inpainting.dataset import PreparedDataset
from components.inpainting.networks import Generator, load_generator
from components.inpainting.scores import PAPER
from components.progress import explain
from components.tracking import Training, trainings_of

_TRIES = 3
_NAME = "The paper's context encoder"


def find_paper(settings: Settings, data: PreparedDataset, but_not: str) -> tuple[Generator | None, str]:
    """The context encoder to show beside a model, and a sentence on where it is from, or why there is none.

    Of the trainings that MLflow holds, save the run ``but_not``: one on the same dataset before one on pictures of
    the same size before any other, and the newest of those. Raises nothing: an evaluation does without it.
    """
    problem = "MLflow holds no finished training of it ('make run PRESET=paper' makes one)"
    try:
        found = [one for one in trainings_of(settings, PAPER) if one.steps and one.run_id != but_not]
    except Exception as error:
        return (
            None,
            f"{_NAME} is not in these tables: MLflow does not say which trainings there are ({explain(error)}).",
        )
    for training in sorted(found, key=lambda one: _distance(one, data))[:_TRIES]:
        try:
            generator = load_generator(training.download())
            _try_out(generator, data)
        except Exception as error:
            problem = f"that of the run {training.name} cannot be used ({explain(error)})"
            continue
        return generator, _origin(training, data)
    return None, f"{_NAME} is not in these tables: {problem}."


def _distance(training: Training, data: PreparedDataset) -> tuple[bool, bool]:
    """How far a training's pictures are from those at hand; the sort keeps the newest first among equals."""
    return training.dataset != data.manifest.digest, training.image_size != data.image_size


def _try_out(generator: Generator, data: PreparedDataset) -> None:
    test, family = data.split("test"), data.families[0]
    judged(generator)(np.asarray(test.damaged(family)[0]), np.asarray(test.masks(family)[0]))


def _origin(training: Training, data: PreparedDataset) -> str:
    whole = f"{_NAME} is that of the MLflow run {training.name}, trained for {training.steps} steps"
    if training.dataset == data.manifest.digest:
        return f"{whole} on this dataset."
    size = f"of {training.image_size} pixels" if training.image_size else "of a size that MLflow does not say"
    return f"{whole} on another dataset, pictures {size}; it may have seen some of these."
