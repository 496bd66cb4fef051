from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from components.evaluate.intervals import Bootstrap


def test_intervals_are_those_of_scipy_where_pictures_are_independent() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=200)
    found = Bootstrap(range(200)).interval(values)
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    width = expected.high - expected.low
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=width / 20)
    assert found.high == pytest.approx(expected.high, abs=width / 20)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    random = np.random.default_rng(0)
    bootstrap = Bootstrap(range(60))
    intervals = [bootstrap.interval(random.normal(3.0, 1.0, 60)) for _ in range(400)]
    assert 0.91 < np.mean([interval.low <= 3.0 <= interval.high for interval in intervals]) < 0.98


def test_crops_of_one_photograph_are_no_news() -> None:
    values = np.random.default_rng(0).normal(size=30)
    alone, repeated = Bootstrap(range(30)), Bootstrap([number // 10 for number in range(300)])
    one, ten = alone.interval(values), repeated.interval(values.repeat(10))
    assert ten.mean == pytest.approx(one.mean)
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.1)


def test_paired_differences_are_far_surer_than_the_scores() -> None:
    random = np.random.default_rng(0)
    difficulty = random.normal(size=100)
    ours, theirs = difficulty + 0.05 + random.normal(0, 0.05, 100), difficulty
    bootstrap = Bootstrap(range(100))
    assert bootstrap.interval(ours - theirs).low > 0
    assert bootstrap.interval(ours).low < bootstrap.interval(theirs).high


def test_pictures_without_a_score_are_left_out() -> None:
    values = np.array([1.0, math.nan, 3.0, math.nan])
    assert Bootstrap(range(4)).interval(values).mean == 2
    assert math.isnan(Bootstrap(range(4)).interval(np.full(4, math.nan)).low)
    one = Bootstrap(["a"]).interval(np.array([0.5]))
    assert (one.low, one.high) == (0.5, 0.5)
