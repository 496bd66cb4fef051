"""Writes down what happens in a training: the log, MLflow's curves, sample grids, checkpoints."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from components.config import TrainConfig
from components.progress import Bar, say
from components.tracking import Run
from components.train.checkpoint import Checkpoints
from components.train.loop import AdversarialLoop, StepLosses
from components.train.samples import Samples
from components.train.state import History, TrainingState


class Recorder:
    """The witness of a training (see ``Trainer``), in its first process.

    ``history`` is the log so far, one row per interval.
    """

    def __init__(self, config: TrainConfig, checkpoints: Checkpoints, samples: Samples, run: Run, bar: Bar) -> None:
        self._config, self._checkpoints, self._samples, self._run, self._bar = config, checkpoints, samples, run, bar
        self._saved_at = -math.inf  # by the monotonic clock; the first checkpoint is due at once
        self.history: History = []

    def restored(self, state: TrainingState) -> None:
        """Take up the history of the state, and forget what came after it."""
        self.history = list(state.history)
        if state.num_steps:
            say(f"going on from the checkpoint of step {state.num_steps}")

    def went_astray(self, sentence: str) -> None:
        """Say so, and tag the run with it."""
        say(sentence)
        self._run.set_tags({"astray": sentence})

    def measured(self, losses: StepLosses, num_steps: int) -> None:
        """Add a line to the log, to the history and to MLflow's curves."""
        scores = losses.scores()
        say(f"{num_steps} {paper_line(scores)}")
        self.history.append({"step": num_steps, **scores})
        self._run.log_metrics({f"batch/{name}": value for name, value in scores.items()}, num_steps)

    def between_steps(self, loop: AdversarialLoop) -> None:
        """Take samples and write a checkpoint where they are due."""
        self._bar.move_to(loop.num_steps)
        if loop.is_due(self._config.sample_interval) and not self._samples.has(loop.num_steps):
            self._samples.take(loop.result, loop.num_steps)
        at_end = loop.num_steps == self._config.steps  # so that nothing is left to a retry but to hand the model on
        if at_end or time.monotonic() - self._saved_at >= self._config.checkpoint_interval:
            self.save(loop)

    def save(self, loop: AdversarialLoop) -> None:
        """Write a checkpoint, unless numbers have gone astray, which the next reading of the vitals will notice."""
        state = loop.state(self.history)
        if state.is_finite:
            self._checkpoints.save(state)
            self._saved_at = time.monotonic()

    def write_history(self, path: Path) -> None:
        """Write the log as JSON lines."""
        path.write_text("".join(json.dumps(row) + "\n" for row in self.history))


def paper_line(scores: dict[str, float]) -> str:
    """The line that the paper prints per iteration; MSE is of the hole, on [0, 1] data."""
    return (
        f"[D loss: {scores['d_loss']:.4f}, acc: {100 * scores['d_accuracy']:.2f}%] "
        f"[G loss: {scores['g_loss']:.4f}, mse: {scores['mse']:.5f}, ssim: {scores['ssim']:.4f}]"
    )
