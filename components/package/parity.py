"""Proof that an exported generator repairs as the network it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import ROUNDING, Bytes, resize
from components.inpainting.inpainter import Inpainter
from components.inpainting.metrics import ssim

MIN_SSIM = 0.9999

_SIZES = ((1.0, 1.0), (1.6, 1.6), (3.0, 4.1))  # times the training size: as trained, odd, and long


class ParityError(ValueError):
    """The export repairs differently from the network it was made from."""


@dataclass(frozen=True)
class Case:
    """A picture (uint8 ``H,W,3``), a mask (``H,W``), and the trained network's own repair of it."""

    name: str
    image: Bytes
    mask: Bytes
    expected: Bytes


def golden_cases(data: PreparedDataset, trained: Inpainter) -> list[Case]:
    """Real test pictures at several sizes, none a multiple of a stride but the first, under every family."""
    test = data.split("test")
    cases = []
    for number, (tall, wide) in enumerate(_SIZES):
        for index, family in enumerate(data.families):
            height, width = round(data.image_size * tall), round(data.image_size * wide)
            which = (number * len(data.families) + index) % len(test.images)
            image = resize(test.images[which], height, width)
            rows, columns = (np.arange(side) * data.image_size // side for side in (height, width))
            mask = np.ascontiguousarray(test.masks(family)[which][np.ix_(rows, columns)])
            cases.append(Case(f"{number}-{family}", image, mask, trained(image, mask)))
    return cases


def check_parity(exported: Inpainter, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Compare an export with what the trained network made of every case; returns the differences.

    Raises ``ParityError`` above ``ROUNDING`` or below ``MIN_SSIM``.
    """
    rows = []
    for case in cases:
        expected, found = case.expected, exported(case.image, case.mask)
        difference = int(np.abs(expected.astype(int) - found.astype(int)).max())
        similarity = float(ssim(found[None], expected[None])[0])
        rows.append(
            {"case": case.name, "size": list(case.mask.shape), "max_difference": difference, "ssim": similarity}
        )
        if difference > ROUNDING or similarity < MIN_SSIM:
            raise ParityError(
                f"the ONNX export differs from torch by {difference} of 255 (SSIM {similarity:.5f}) on {case.name}; "
                "it is not packaged. Report this with the version of torch and onnxruntime"
            )
    return rows
