"""Scores of every method: means with intervals, slices, and the table with one row per picture, family and method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from components.evaluate.intervals import Bootstrap
from components.evaluate.repairing import Repairs
from components.inpainting.classical import SLOW
from components.inpainting.dataset import PreparedDataset, Split
from components.inpainting.images import Bytes
from components.inpainting.masks import BINS, coverage
from components.inpainting.metrics import Scores, score_each
from components.inpainting.scores import (
    CANDIDATE,
    DAMAGED,
    LABELS,
    OVERALL,
    SHOWN,
    Beside,
    Differences,
    MethodScores,
    Score,
    Slice,
)

if TYPE_CHECKING:
    import pandas as pd

Each = dict[str, dict[str, Scores]]
"""Method name to metric name to one score per picture."""

_WITH_INTERVALS = ("ssim", "psnr", "hole_mse")


def score_methods(repairs: Repairs, truths: Bytes, masks: Bytes) -> Each:
    """Every method's scores of every picture that it repaired under one family's holes."""
    return {
        name: score_each(repaired, truths[: len(repaired)], masks[: len(repaired)])
        for name, repaired in repairs.items()
    }


def method_scores(each: dict[str, Each], bootstrap: Bootstrap) -> dict[str, MethodScores]:
    """The means of every method that repaired all pictures, with intervals; ``each`` is by family."""
    scores = {}
    for name in (name for name in LABELS if name in next(iter(each.values())) and name not in SLOW):
        families = {family: _mean(methods[name]) for family, methods in each.items()}
        intervals = {
            family: {metric: bootstrap.interval(values[metric]) for metric in _WITH_INTERVALS}
            for family, values in _with_overall(each, name).items()
        }
        scores[name] = MethodScores(families=families, overall=_overall(list(families.values())), intervals=intervals)
    return scores


def beside(each: dict[str, Each], seconds: dict[str, list[float]], count: int) -> dict[str, Beside]:
    """All methods on the first ``count`` pictures of every family, which is those that all of them repaired."""
    found = {}
    for name in (name for name in LABELS if name in next(iter(each.values()))):
        means = [
            _mean({metric: values[:count] for metric, values in methods[name].items()}) for methods in each.values()
        ]
        took = float(np.mean(seconds[name])) if name != DAMAGED else float("nan")
        found[name] = Beside(score=_overall(means), seconds=took)
    return found


def differences(each: dict[str, Each], bootstrap: Bootstrap, others: list[str]) -> Differences:
    """How much more this model scores than each of the others, picture by picture: per family and over all."""
    ours = _with_overall(each, CANDIDATE)
    return {
        name: {
            family: {metric: bootstrap.interval(ours[family][metric] - values[metric]) for metric in _WITH_INTERVALS}
            for family, values in _with_overall(each, name).items()
        }
        for name in others
    }


def slices(test: Split, each: dict[str, Each]) -> Iterator[Slice]:
    """The shown methods on every mask family, coverage bin and class of which there are pictures."""
    classes = np.array([row.get("class_name") or "" for row in test.index])
    for family, methods in each.items():
        bins = np.minimum((coverage(test.masks(family)) * 10).astype(int), len(BINS))
        for number in np.unique(bins):
            for class_name in np.unique(classes):
                rows = (bins == number) & (classes == class_name)
                if rows.any():
                    yield Slice(
                        family=family, coverage=_bin_name(number), class_name=str(class_name),
                        num_images=int(rows.sum()),
                        methods={
                            name: _mean({metric: values[rows] for metric, values in methods[name].items()})
                            for name in SHOWN if name in methods
                        },
                    )  # fmt: skip


def per_image_table(data: PreparedDataset, each: dict[str, Each]) -> pd.DataFrame:
    """One row per picture, family and method: photograph, class, coverage and scores."""
    import pandas as pd

    test = data.split("test")
    frames = []
    for family, methods in each.items():
        shares = coverage(test.masks(family))
        for method, scores in methods.items():
            count = len(scores["ssim"])
            frame = pd.DataFrame(test.index[:count])
            frame.insert(0, "picture", range(count))
            frames.append(frame.assign(family=family, method=method, coverage=shares[:count], **scores))
    return pd.concat(frames, ignore_index=True)


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """``per_image_table`` for MLflow, which lays runs beside each other by its first column and shows its second.

    This model's rows come first, then the champion's, then those of the others, as in all tables.
    """
    ranks = {method: rank for rank, method in enumerate(reversed(LABELS))}
    table = table.sort_values("method", key=lambda methods: methods.map(ranks), kind="stable")
    name = table["family"] + " " + table["picture"].astype(str) + ", " + table["method"].map(LABELS)
    front = ["ssim", "psnr", "hole_mse"]
    rest = [column for column in table.columns if column not in front]
    ordered: pd.DataFrame = table[front + rest]
    ordered.insert(0, "repair", name)
    return ordered


def _bin_name(number: int) -> str:
    return f"{10 * number}-{10 * number + 10} %" if number < len(BINS) else f"over {10 * len(BINS)} %"


def _mean(scores: dict[str, Scores]) -> Score:
    return Score(**{name: float(values.mean()) for name, values in scores.items()})


def _overall(families: list[Score]) -> Score:
    """The mean over families, which have a picture each of every kind."""
    return Score(**{name: float(np.mean([getattr(s, name) for s in families])) for name in Score.model_fields})


def _with_overall(each: dict[str, Each], method: str) -> dict[str, dict[str, Scores]]:
    """A method's scores per picture by family, and as ``"overall"`` each picture's mean over its holes of all."""
    families = {family: methods[method] for family, methods in each.items()}
    whole = {metric: np.mean([scores[metric] for scores in families.values()], axis=0) for metric in _WITH_INTERVALS}
    return families | {OVERALL: whole}
