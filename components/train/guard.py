"""Notices a training that went astray, while the last good checkpoint can still be gone back to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median

_BLOW_UP = 1000.0  # times the usual norm of the gradient
_USUAL = 5  # readings before there is a usual
_PATIENCE = 10  # readings in a row that a discriminator may be of no use
_DEAD, _BEATEN = 1e-6, 1e-5


class TrainingDiverged(ValueError):
    """A training went astray, for the reason given."""


class Guard:
    """Judges a training by its vitals, read at intervals (see ``Vitals.read``).

    Astray is what has a loss or gradient that is no finite number, a gradient 1000 times its usual norm, or,
    where there is an adversarial loss, a discriminator that for ten readings gave one answer to everything
    (its logits differ by less than 1e-6) or made no more mistakes to learn from (its loss is below 1e-5).
    """

    def __init__(self, *, adversarial: bool) -> None:
        self._adversarial = adversarial
        self._norms: list[float] = []
        self._dead = self._beaten = 0

    def check(self, vitals: Mapping[str, float], num_steps: int) -> None:
        """Raise ``TrainingDiverged`` naming what is wrong."""
        for name, label in (
            ("d_loss", "the loss of D"),
            ("g_loss", "the loss of G"),
            ("gradient_norm", "the gradient"),
        ):
            if not math.isfinite(vitals[name]):
                raise TrainingDiverged(f"by step {num_steps} {label} is no finite number")
        self._check_gradient(vitals["gradient_norm"], num_steps)
        if self._adversarial:
            self._check_discriminator(vitals, num_steps)

    def _check_gradient(self, norm: float, num_steps: int) -> None:
        if len(self._norms) >= _USUAL and norm > _BLOW_UP * median(self._norms):
            raise TrainingDiverged(
                f"by step {num_steps} the gradient exploded (norm {norm:.3g}, usually {median(self._norms):.3g})"
            )
        self._norms = [*self._norms[-99:], norm]

    def _check_discriminator(self, vitals: Mapping[str, float], num_steps: int) -> None:
        self._dead = self._dead + 1 if vitals["d_spread"] < _DEAD else 0
        self._beaten = self._beaten + 1 if vitals["d_loss"] < _BEATEN else 0
        if self._dead >= _PATIENCE:
            raise TrainingDiverged(f"by step {num_steps} the discriminator collapsed: it answers everything alike")
        if self._beaten >= _PATIENCE:
            raise TrainingDiverged(
                f"by step {num_steps} the discriminator tells every repair from the truth without a mistake, "
                "and the generator has nothing to learn from it"
            )
