"""Bootstrap confidence intervals of means over test pictures."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from components.inpainting.metrics import Scores
from components.inpainting.scores import Interval

_RESAMPLES = 2000
_LEVEL = 0.95


class Bootstrap:
    """Percentile bootstrap (Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979) of 95 % intervals.

    Whole photographs are drawn, with all the pictures that were cut from one: those are alike, and counting them
    as independent would make intervals too narrow. The same draws serve every call, so that what is said of two
    methods is said of the same pictures.
    """

    def __init__(self, photographs: Sequence[Hashable], seed: int = 0) -> None:
        """``photographs`` names each picture's photograph."""
        numbers = {photograph: number for number, photograph in enumerate(dict.fromkeys(photographs))}
        self._groups = np.array([numbers[photograph] for photograph in photographs])
        count = len(numbers)
        draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), _RESAMPLES)
        self._weights = draws[:, self._groups].astype(np.float64)  # how often each resample holds each picture

    def interval(self, values: Scores) -> Interval:
        """The interval of the mean of one value per picture, pictures without one (NaN) left out.

        Of paired differences it says whether one method is better than another: it is where the interval
        lies above 0.
        """
        there = np.isfinite(values)
        if not there.any():
            return Interval(mean=float("nan"), low=float("nan"), high=float("nan"))
        weights = self._weights[:, there]
        drawn = weights.sum(axis=1)
        means = (weights @ values[there])[drawn > 0] / drawn[drawn > 0]
        low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return Interval(mean=float(values[there].mean()), low=float(low), high=float(high))
