from __future__ import annotations

import numpy as np
import pytest

from components.prepare.statistics import FEATURES, Drift, compare, edges, stability_index


def facts(brightness: float, classes: dict[str, int], seed: int = 0) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    features = {}
    for name in FEATURES:
        low, high = edges(name)[[0, -1]]
        values = np.clip(rng.normal(low + brightness * (high - low), 0.1 * (high - low), 2000), low, high)
        counts, _ = np.histogram(values, edges(name))
        features[name] = {"mean": float(values.mean()), "std": float(values.std()), "histogram": counts.tolist()}
    return {"features": features, "classes": classes}


def test_the_stability_index_is_that_of_the_textbook() -> None:
    """Two bins, 50/50 against 80/20: (.8 - .5) ln(.8 / .5) + (.2 - .5) ln(.2 / .5), up to the half pictures."""
    expected = 0.3 * np.log(1.6) - 0.3 * np.log(0.4)
    assert stability_index(np.array([50_000, 50_000]), np.array([80_000, 20_000])) == pytest.approx(expected, rel=1e-3)
    assert stability_index(np.array([7, 0, 3]), np.array([7, 0, 3])) == 0


def test_samples_of_one_collection_are_stable_and_another_has_drifted() -> None:
    cats = {"cat": 500, "dog": 500}
    same = compare(facts(0.5, cats), facts(0.5, cats, seed=1))
    other = compare(facts(0.8, {"cat": 950, "dog": 50}), facts(0.5, cats, seed=1))
    assert [row.verdict for row in same] == ["stable"] * (len(FEATURES) + 1)
    assert [row.verdict for row in other] == ["drifted"] * (len(FEATURES) + 1)
    assert other[-1].before == 0.5
    assert other[-1].now == 0.95


def test_the_verdict_follows_the_rule_of_thumb() -> None:
    verdicts = [Drift(name="red", before=0, now=0, psi=psi).verdict for psi in (0.05, 0.15, 0.3)]
    assert verdicts == ["stable", "shifted", "drifted"]


def test_a_class_that_is_new_counts() -> None:
    rows = compare(facts(0.5, {"cat": 500, "fox": 500}), facts(0.5, {"cat": 1000}))
    assert rows[-1].verdict == "drifted"
