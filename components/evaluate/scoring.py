"""Scores of one method, and the table with one row per picture, family and method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Bytes
from components.inpainting.masks import coverage
from components.inpainting.metrics import hole_mse, psnr, ssim
from components.inpainting.scores import Score

if TYPE_CHECKING:
    import pandas as pd

Repairs = dict[str, Bytes]
"""Method name to its repairs, uint8 ``N,H,W,3``."""


def score(repairs: Bytes, truths: Bytes, masks: Bytes) -> Score:
    """Mean scores of one method under one family's holes."""
    return Score(
        ssim=float(ssim(repairs, truths).mean()),
        psnr=float(psnr(repairs, truths).mean()),
        hole_mse=float(hole_mse(repairs, truths, masks).mean()),
    )


def overall(families: list[Score]) -> Score:
    """The mean over families, which have a picture each of every kind."""
    return Score(**{name: float(np.mean([getattr(s, name) for s in families])) for name in Score.model_fields})


def per_image_table(data: PreparedDataset, repairs: dict[str, Repairs]) -> pd.DataFrame:
    """One row per picture, family and method: photograph, class, coverage and scores."""
    import pandas as pd

    test = data.split("test")
    frames = []
    for family, methods in repairs.items():
        masks = test.masks(family)
        for method, repaired in methods.items():
            frame = pd.DataFrame(test.index)
            frame.insert(0, "picture", range(len(frame)))
            frames.append(
                frame.assign(
                    family=family,
                    method=method,
                    coverage=coverage(masks),
                    ssim=ssim(repaired, test.images),
                    psnr=psnr(repaired, test.images),
                    hole_mse=hole_mse(repaired, test.images, masks),
                )
            )
    return pd.concat(frames, ignore_index=True)
