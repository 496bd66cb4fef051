"""Bootstrap confidence intervals of means over test pictures."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import stdtrit

from components.inpainting.metrics import Scores
from components.inpainting.scores import Interval

_RESAMPLES = 2000
_LEVEL = 0.95


class Bootstrap:
    """95 % intervals by the bootstrap, valid where photographs are few.

    Whole photographs are drawn, with all the pictures that were cut from one: those are alike, and counting them
    as independent would make intervals too narrow. The same draws serve every call, so that what is said of two
    methods is said of the same pictures.

    An interval is the mean plus and minus ``t`` times the bootstrap's standard error (Efron & Tibshirani, "An
    Introduction to the Bootstrap", 1993, chapters 6 and 12), with Student's ``t`` for ``n - 1`` degrees of freedom and
    the error widened by ``sqrt(n / (n - 1))``, ``n`` photographs (Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2015, on the bootstrap's narrowness). The percentiles of the resampled means, which are simpler, hold
    the truth in three of four intervals over three photographs; the studentised bootstrap has no finite bounds there.
    """

    def __init__(self, photographs: Sequence[Hashable], seed: int = 0) -> None:
        """``photographs`` names each picture's photograph."""
        numbers = {photograph: number for number, photograph in enumerate(dict.fromkeys(photographs))}
        self._groups = np.array([numbers[photograph] for photograph in photographs])
        self.num_photographs = len(numbers)
        shares = np.full(len(numbers), 1 / len(numbers))
        draws = np.random.default_rng(seed).multinomial(len(numbers), shares, _RESAMPLES)
        self._weights = draws[:, self._groups].astype(np.float64)  # how often each resample holds each picture

    def interval(self, values: Scores) -> Interval:
        """The interval of the mean of one value per picture, pictures without one (NaN) left out.

        Of paired differences it says whether one method is better than another: it is where the interval
        lies above 0. The pictures of a single photograph have a mean, and bounds that are NaN.
        """
        there = np.isfinite(values)
        mean = float(values[there].mean()) if there.any() else math.nan
        count = len(np.unique(self._groups[there]))
        if count < 2:
            return Interval(mean=mean, low=math.nan, high=math.nan)
        weights = self._weights[:, there]
        drawn = weights.sum(axis=1)
        means = (weights @ values[there])[drawn > 0] / drawn[drawn > 0]
        error = means.std() * math.sqrt(count / (count - 1))
        reach = float(stdtrit(count - 1, (1 + _LEVEL) / 2) * error)
        return Interval(mean=mean, low=mean - reach, high=mean + reach)
