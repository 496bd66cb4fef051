from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from components.evaluate.intervals import Bootstrap


def test_intervals_are_students_where_pictures_are_independent() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=40)
    found = Bootstrap(range(40)).interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    width = expected.high - expected.low
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=width / 20)
    assert found.high == pytest.approx(expected.high, abs=width / 20)


@pytest.mark.parametrize(
    ("sizes", "low", "high"),
    [
        ([48, 48], 0.93, 0.97),
        ([32, 32, 32], 0.93, 0.97),  # the default's sample; percentiles hold the truth in 76 of 100
        ([60, 20, 10, 4, 2], 0.88, 0.97),
        ([8] * 12, 0.93, 0.97),
        ([2] * 40, 0.93, 0.97),
    ],
    ids=["2", "3", "5 of unequal size", "12", "40"],
)
def test_nineteen_of_twenty_intervals_hold_the_truth_however_few_the_photographs(
    sizes: list[int], low: float, high: float
) -> None:
    random = np.random.default_rng(0)
    photographs = np.repeat(np.arange(len(sizes)), sizes)
    bootstrap = Bootstrap(photographs.tolist())

    def draw() -> bool:
        alike = random.normal(size=len(sizes))[photographs]  # all crops of a photograph are as easy or as hard
        found = bootstrap.interval(3 + alike + random.normal(0, 0.7, len(photographs)))
        return found.low <= 3 <= found.high

    assert low < np.mean([draw() for _ in range(1500)]) < high


def test_skewed_values_of_three_photographs_are_held_nearly_as_often() -> None:
    random, bootstrap = np.random.default_rng(0), Bootstrap(range(3))
    intervals = [bootstrap.interval(random.exponential(size=3)) for _ in range(1500)]
    assert 0.86 < np.mean([found.low <= 1 <= found.high for found in intervals]) < 0.93  # percentiles: 0.68


def test_crops_of_one_photograph_are_no_news() -> None:
    values = np.random.default_rng(0).normal(size=30)
    alone, repeated = Bootstrap(range(30)), Bootstrap([number // 10 for number in range(300)])
    one, ten = alone.interval(values), repeated.interval(values.repeat(10))
    assert (alone.num_photographs, repeated.num_photographs) == (30, 30)
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
    found = Bootstrap(range(4)).interval(values)
    assert found.mean == 2
    assert found.high > 2 + 6  # Student's t of two values, not of four
    nothing = Bootstrap(range(4)).interval(np.full(4, math.nan))
    assert all(math.isnan(value) for value in (nothing.mean, nothing.low, nothing.high))


def test_pictures_of_one_photograph_have_a_mean_and_no_interval() -> None:
    for photographs, values in ((["a", "a"], [0.5, 1.5]), (["a", "a", "b"], [0.5, 1.5, math.nan])):
        found = Bootstrap(photographs).interval(np.array(values))
        assert found.mean == 1
        assert math.isnan(found.low) and math.isnan(found.high)


def test_values_that_are_all_alike_have_an_interval_of_no_width() -> None:
    found = Bootstrap(range(3)).interval(np.zeros(3))
    assert (found.mean, found.low, found.high) == (0, 0, 0)
