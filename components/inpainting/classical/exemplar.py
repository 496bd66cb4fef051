"""Exemplar-based filling (Criminisi, Perez & Toyama, "Region Filling and Object Removal by Exemplar-Based Image
Inpainting", 2004)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, gaussian_filter

from components.inpainting.classical.patches import KnownPatches
from components.inpainting.images import Bytes

_SIDE = 9  # of a patch, pixels, as in the paper
_MOST = 20_000  # patches that are searched

Map = npt.NDArray[np.float64]


def exemplar(image: Bytes, mask: Bytes) -> Bytes:
    """Copy whole patches from the known part, where structure runs into the hole first.

    The patch on the hole's front with the highest priority (how much of it is known, times how strong an edge
    meets the front there) is completed from the known patch that looks most like it, until the hole is gone.
    uint8 ``H,W,3`` and ``H,W`` to uint8 ``H,W,3``.
    """
    known = KnownPatches(image, mask, _SIDE, _MOST, np.random.default_rng(0))
    side, half = known.side, known.side // 2
    margin = ((half, half), (half, half))
    picture = np.pad(image, (*margin, (0, 0)), mode="edge").astype(np.float32)
    inside = np.pad(np.ones(mask.shape, bool), half)
    hole = np.pad(mask.astype(bool), half)
    confidence = (inside & ~hole).astype(np.float64)
    while hole.any():
        top, left = _most_urgent(picture, hole, confidence, side)
        here = slice(top - half, top + half + 1), slice(left - half, left + half + 1)
        wanted = hole[here].copy()
        weights = np.repeat((inside[here] & ~wanted).ravel(), 3).astype(np.float32)
        best = known.pixels[known.distances(picture[here].ravel(), weights).argmin()]
        picture[here][wanted] = best.reshape(side, side, 3)[wanted]
        confidence[here][wanted] = confidence[here].sum() / side**2
        hole[here] = False
    repaired = picture[half : half + mask.shape[0], half : half + mask.shape[1]].astype(np.uint8)
    return np.where(mask[..., None] > 0, repaired, image)


def _most_urgent(
    picture: npt.NDArray[np.float32], hole: npt.NDArray[np.bool_], confidence: Map, side: int
) -> list[int]:
    """The pixel on the front whose patch comes first: confidence times data term (equations 1 and 2)."""
    front = np.argwhere(hole & binary_dilation(~hole))
    half = side // 2
    data = _data_term(picture.mean(axis=2, dtype=np.float64), hole)
    priorities = [
        confidence[y - half : y + half + 1, x - half : x + half + 1].sum() / side**2 * data[y, x] for y, x in front
    ]
    urgent: list[int] = front[int(np.argmax(priorities))].tolist()
    return urgent


def _data_term(grey: Map, hole: npt.NDArray[np.bool_]) -> Map:
    """How strongly isophotes run into the front, per pixel: the strongest around it, times the front's normal."""
    sound = (~hole).astype(np.float64)
    dy, dx = np.gradient(np.where(hole, np.nan, grey))
    dy, dx = np.nan_to_num(dy), np.nan_to_num(dx)  # gradients that would need a hole pixel are none
    ny, nx = np.gradient(gaussian_filter(sound, 1.0))
    length = np.hypot(ny, nx) + 1e-9
    strength = np.hypot(dy, dx)
    best = _strongest_nearby(strength)
    iy, ix = -dx.ravel()[best], dy.ravel()[best]  # an isophote runs across the gradient
    strengths: Map = np.abs(iy * ny + ix * nx) / length / 255 + 1e-3  # never 0: confidence decides the rest
    return strengths


def _strongest_nearby(strength: Map) -> npt.NDArray[np.int_]:
    """For every pixel the flat index of the pixel with the strongest gradient in the 5x5 pixels around it."""
    reach = 2
    padded = np.pad(strength, reach, constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
    best = windows.reshape(*strength.shape, -1).argmax(axis=2)
    rows, columns = np.indices(strength.shape)
    at_row, at_column = rows + best // (2 * reach + 1) - reach, columns + best % (2 * reach + 1) - reach
    flat: npt.NDArray[np.int_] = at_row * strength.shape[1] + at_column
    return flat
