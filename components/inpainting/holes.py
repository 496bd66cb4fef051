"""Holes made larger, and repairs blended into what was added to them. Needs numpy alone."""

from __future__ import annotations

import numpy as np

from components.inpainting.images import Bytes


def grow(mask: Bytes, pixels: int) -> Bytes:
    """Every hole of a mask (uint8 ``H,W`` of 0 and 1) larger by ``pixels`` on all sides, diagonals included."""
    for axis in (0, 1) if pixels else ():
        mask = _running_maximum(mask, pixels, axis)
    return mask


def blend(image: Bytes, repair: Bytes, mask: Bytes, grown: int, feather: int) -> Bytes:
    """A repair, faded into what was there before over the outermost pixels of what was added to the hole.

    Parameters
    ----------
    image, repair:
        uint8 ``H,W,3``, equal to the bit outside the grown hole.
    mask:
        uint8 ``H,W``, the hole before it was grown; all of it is the repair's.
    grown, feather:
        By how many pixels the hole was grown, and over how many of those the repair fades, at most all.

    """
    steps = min(grown, feather)
    if not steps:
        return repair
    hole = grow(mask, grown - steps)
    weight = hole.astype(np.uint8)  # up to all steps and one
    for _ in range(steps):
        hole = grow(hole, 1)
        weight += hole
    fading = (weight > 0) & (weight <= steps)
    share = weight[fading, None] / np.float32(steps + 1)
    blended, before = repair.copy(), image[fading]
    blended[fading] = np.rint(before + (repair[fading].astype(np.float32) - before) * share)
    return blended


def _running_maximum(values: Bytes, radius: int, axis: int) -> Bytes:
    """The maximum within ``radius`` along an axis; the window doubles, so it takes few passes however wide it is."""
    values = np.pad(values, [(radius, radius) if axis == a else (0, 0) for a in range(values.ndim)])
    values = np.moveaxis(values, axis, 0)
    width = 1
    while width < 2 * radius + 1:
        step = min(width, 2 * radius + 1 - width)
        values = np.maximum(values[:-step], values[step:])
        width += step
    return np.moveaxis(values, 0, axis)
