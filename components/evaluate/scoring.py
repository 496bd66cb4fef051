"""Scores of one method, and the table with one row per picture, family and method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Bytes
from components.inpainting.masks import coverage
from components.inpainting.metrics import Scores, score_each
from components.inpainting.scores import Score

if TYPE_CHECKING:
    import pandas as pd

Repairs = dict[str, Bytes]
"""Method name to its repairs, uint8 ``N,H,W,3``."""


Each = dict[str, dict[str, Scores]]
"""Method name to metric name to one score per picture."""


def score_methods(repairs: Repairs, truths: Bytes, masks: Bytes) -> Each:
    """Every method's scores of every picture under one family's holes."""
    return {method: score_each(repaired, truths, masks) for method, repaired in repairs.items()}


def mean(scores: dict[str, Scores]) -> Score:
    """Mean scores of one method under one family's holes."""
    return Score(**{name: float(values.mean()) for name, values in scores.items()})


def overall(families: list[Score]) -> Score:
    """The mean over families, which have a picture each of every kind."""
    return Score(**{name: float(np.mean([getattr(s, name) for s in families])) for name in Score.model_fields})


def per_image_table(data: PreparedDataset, each: dict[str, Each]) -> pd.DataFrame:
    """One row per picture, family and method: photograph, class, coverage and scores."""
    import pandas as pd

    test = data.split("test")
    frames = []
    for family, methods in each.items():
        shares = coverage(test.masks(family))
        for method, scores in methods.items():
            frame = pd.DataFrame(test.index)
            frame.insert(0, "picture", range(len(frame)))
            frames.append(frame.assign(family=family, method=method, coverage=shares, **scores))
    return pd.concat(frames, ignore_index=True)
