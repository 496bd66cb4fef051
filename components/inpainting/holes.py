"""Holes made larger, and repairs blended into what was added to them. Needs numpy alone."""

from __future__ import annotations

import numpy as np

from components.inpainting.images import Bytes, composite


def grow(mask: Bytes, pixels: int) -> Bytes:
    """Every hole of a mask (uint8 ``H,W`` of 0 and 1) larger by ``pixels`` on all sides, diagonals included."""
    for axis in (0, 1) if pixels else ():
        mask = _running_maximum(mask, pixels, axis)
    return mask


def blend(image: Bytes, repair: Bytes, mask: Bytes, grown: int, feather: int) -> Bytes:
    """The repair inside the hole, faded into ``image`` over the outermost pixels of what was added to the hole.

    Parameters
    ----------
    image, repair:
        uint8 ``H,W,3``; every pixel outside the grown hole comes back from ``image`` bit for bit.
    mask:
        uint8 ``H,W``, the hole before it was grown; all of it is the repair's.
    grown, feather:
        By how many pixels the hole was grown, and over how many of those the repair fades, at most all.

    """
    steps = min(grown, feather)
    hole = grow(mask, grown - steps)
    weight = hole.astype(np.float32)
    for _ in range(steps):
        hole = grow(hole, 1)
        weight += hole
    share = (weight / (steps + 1))[..., None]
    faded = np.rint(image + (repair.astype(np.float32) - image) * share).astype(np.uint8)
    return composite(image, faded, hole)


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
