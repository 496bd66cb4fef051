"""Takes a training from where it stands to its last step, whatever comes between."""

from __future__ import annotations

from typing import Protocol

from components.config import TrainConfig
from components.inpainting.batches import Batch, Batches
from components.progress import say
from components.train.checkpoint import Checkpoints
from components.train.guard import Guard, TrainingDiverged
from components.train.loop import AdversarialLoop, StepLosses
from components.train.state import TrainingState
from components.train.stopping import Stopped, Stopping

_LOWER_RATE = 0.3  # of the learning rate, after going back


class Witness(Protocol):
    """Who writes down what happens in a training; of several processes the first has one."""

    def restored(self, state: TrainingState) -> None:
        """The training goes on from a state."""

    def went_astray(self, sentence: str) -> None:
        """The training goes back to its last checkpoint, for the reason given."""

    def measured(self, losses: StepLosses, num_steps: int) -> None:
        """A line of the log is due."""

    def between_steps(self, loop: AdversarialLoop) -> None:
        """A step is done, or the first is about to be taken: samples and checkpoints may be due."""


class Trainer:
    """One process's part in a training; all processes of a training take the same steps."""

    def __init__(
        self, config: TrainConfig, loop: AdversarialLoop, batches: Batches, checkpoints: Checkpoints,
        stopping: Stopping,
    ) -> None:  # fmt: skip
        self._config, self.loop, self._batches = config, loop, batches
        self.checkpoints, self.stopping = checkpoints, stopping
        self.witness: Witness | None = None
        self._guard = self._new_guard()

    def train(self, state: TrainingState | None) -> None:
        """All steps that are left after ``state``.

        Raises ``Stopped`` between two steps when asked to stop, and ``TrainingDiverged`` when the training
        goes astray a second time, after a return to the last good checkpoint with a lower learning rate.
        """
        if state:
            self._restore(state)
        if self.loop.compute.compile != "off" and self.loop.num_steps < self._config.steps:
            if self.witness:
                say("compiling the networks, which takes up to a minute")
            self.loop.warm_up(self._batch())
        while True:
            try:
                return self._take_steps()
            except TrainingDiverged as diverged:
                self._go_back(diverged)

    def _take_steps(self) -> None:
        self._between_steps()
        while self.loop.num_steps < self._config.steps:
            with self.stopping.shielded():
                losses = self.loop.step(self._batch())
                if self.loop.is_due(self._config.log_interval):
                    self._read(losses)
            if self.loop.world.agree(bool(self.stopping.asked)):
                raise Stopped(self.stopping.asked)
            self._between_steps()

    def _read(self, losses: StepLosses) -> None:
        """Judge the training, and take down a line; what one process finds, all heed."""
        astray = None
        try:
            self._guard.check(self.loop.take_vitals().read(), self.loop.num_steps)
        except TrainingDiverged as diverged:
            astray = diverged
        if self.loop.world.agree(astray is not None):
            raise astray or TrainingDiverged(f"by step {self.loop.num_steps} another process's part went astray")
        if self.witness:
            self.witness.measured(losses, self.loop.num_steps)

    def _between_steps(self) -> None:
        if self.witness:
            self.witness.between_steps(self.loop)

    def _go_back(self, diverged: TrainingDiverged) -> None:
        good = self.checkpoints.newest(self.loop.world.tell)
        if self.loop.rate_scale < 1 or good is None:
            raise TrainingDiverged(
                f"training went astray twice, and no model is handed on: {diverged}. Lower train_learning_rate "
                f"(it is {self._config.learning_rate:g}) or train_adversarial_weight, or look at the data card"
            ) from None
        if self.witness:
            self.witness.went_astray(
                f"{diverged}; going back to step {good.num_steps} with {_LOWER_RATE:g} of the learning rate"
            )
        self._restore(good)
        self.loop.rate_scale = _LOWER_RATE
        self._guard = self._new_guard()

    def _restore(self, state: TrainingState) -> None:
        self.loop.restore(state)
        if self.witness:
            self.witness.restored(state)

    def _batch(self) -> Batch:
        world = self.loop.world
        return self._batches[self.loop.num_steps].share(world.rank, world.size)

    def _new_guard(self) -> Guard:
        return Guard(adversarial=self._config.adversarial_weight > 0)
