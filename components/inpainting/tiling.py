"""Pictures of any size through a network of limited reach: crop around the holes, tile, feather, composite.

Needs numpy and Pillow alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from components.inpainting.images import Bytes, Floats, composite, resize, to_bytes, to_planes

MIN_CONTEXT = 32
"""Known pixels shown to the network on every side of a hole, at least, where the picture has them."""

MAX_TILE = 512
"""Tiles are at most this high and wide, so that memory stays bounded."""

_BAND = 4  # pixels of the smaller copy that stay to be filled at full size

OVERLAP = 96
"""Pixels that neighbouring tiles share; they are blended linearly across it."""

Fill = Callable[[Floats, Floats], Floats]
"""A network: float32 ``N,C,H,W`` in [0, 1] and ``N,1,H,W`` masks to ``N,C,H,W``."""


def repair_picture(image: Bytes, mask: Bytes, fill: Fill, stride: int) -> Bytes:
    """Repair uint8 ``H,W,3`` where ``mask`` (``H,W``) is 1; every other pixel comes back bit for bit.

    ``fill`` is called on windows around the holes only, mirrored up to a multiple of ``stride``.
    """
    if not mask.any():
        return image.copy()
    top, bottom, left, right = hole_window(mask)
    known, damaged = image[top:bottom, left:right], mask[top:bottom, left:right]
    window, holes = _fill_interiors(known, damaged, fill, stride)
    repaired = image.copy()
    filled_window = composite(window, _to_bytes(_blend_tiles(window, holes, fill, stride)), holes)
    repaired[top:bottom, left:right] = composite(known, filled_window, damaged)
    return repaired


def repair_blindly(image: Bytes, fill: Fill, stride: int) -> Bytes:
    """Let a network that finds the damage itself repair uint8 ``H,W,3``; any pixel may come back changed.

    ``fill`` is called on overlapping tiles of the whole picture, with empty masks.
    """
    return _to_bytes(_blend_tiles(image, np.zeros(image.shape[:2], np.uint8), fill, stride, everywhere=True))


def find_damage(image: Bytes, find: Fill, stride: int) -> Bytes:
    """Let a network say where uint8 ``H,W,3`` is damaged: uint8 ``H,W``, 1 where it takes it for more likely than not.

    ``find`` answers with one channel of probabilities, and is called like a blind network.
    """
    likely = _blend_tiles(image, np.zeros(image.shape[:2], np.uint8), find, stride, everywhere=True)
    return (likely[..., 0] > 0.5).astype(np.uint8)


def _blend_tiles(window: Bytes, holes: Bytes, fill: Fill, stride: int, *, everywhere: bool = False) -> Floats:
    """Tiles with holes (or all) through the network, feathered into one picture, float32 ``H,W,3`` in [0, 1]."""
    total = np.zeros(window.shape, np.float32)
    weight = np.zeros(holes.shape, np.float32)
    for rows, columns in tiles(*holes.shape):
        if everywhere or holes[rows, columns].any():
            filled = _fill_tile(window[rows, columns], holes[rows, columns], fill, stride)
            feather = _feather(*filled.shape[:2])
            total[rows, columns] += filled * feather[..., None]
            weight[rows, columns] += feather
    return (total / np.maximum(weight, np.float32(1e-6))[..., None]).astype(np.float32)


def _fill_interiors(window: Bytes, holes: Bytes, fill: Fill, stride: int) -> tuple[Bytes, Bytes]:
    """Coarse to fine: fill the inside of holes that no tile can see across from a smaller copy.

    Returns the window with those insides filled, and the holes that are left: the band between them
    and the known pixels. Windows that fit one tile, and thin holes, come back as they are.
    """
    factor = -(-max(holes.shape) // MAX_TILE)
    small_holes = _blocks(holes, factor).min(axis=(1, 3))
    inside = _erode(small_holes, _BAND)
    if factor == 1 or not inside.any():
        return window, holes
    weights = 1.0 - _blocks(holes, factor)[..., None]
    sums = (_blocks(window, factor) * weights).sum(axis=(1, 3))
    small = np.rint(sums / np.maximum(weights.sum(axis=(1, 3)), 1)).astype(np.uint8)
    small = repair_picture(small, small_holes, fill, stride)
    height, width = holes.shape
    large = resize(small, small.shape[0] * factor, small.shape[1] * factor)[:height, :width]
    deep = inside.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]
    return composite(window, large, deep), holes * (1 - deep)


def _blocks(picture: Bytes, factor: int) -> Bytes:
    """``H,W,...`` as ``H/f,f,W/f,f,...``, the last rows and columns repeated where they do not fit."""
    below, beside = (-side % factor for side in picture.shape[:2])
    padded = np.pad(picture, ((0, below), (0, beside), *((0, 0),) * (picture.ndim - 2)), mode="edge")
    height, width = padded.shape[:2]
    return padded.reshape(height // factor, factor, width // factor, factor, *picture.shape[2:])


def _erode(mask: Bytes, radius: int) -> Bytes:
    """Shrink a mask by ``radius`` pixels on every side but the picture's border."""
    for axis in (0, 1):
        padded = np.pad(mask, [(radius, radius) if axis == a else (0, 0) for a in (0, 1)], constant_values=1)
        shifts = [padded.take(range(s, s + mask.shape[axis]), axis=axis) for s in range(2 * radius + 1)]
        mask = np.minimum.reduce(shifts)
    return mask


def hole_window(mask: Bytes) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the hole's bounding box with its context.

    The context is the hole's own extent, ``MIN_CONTEXT`` pixels at least, cut off at the border.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    context = int(np.clip(extent, MIN_CONTEXT, MAX_TILE // 4))
    return (
        max(int(rows[0]) - context, 0),
        min(int(rows[-1]) + 1 + context, mask.shape[0]),
        max(int(columns[0]) - context, 0),
        min(int(columns[-1]) + 1 + context, mask.shape[1]),
    )


def tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Cover ``height`` x ``width`` with overlapping tiles of at most ``MAX_TILE``, as row and column slices."""
    for rows in _spans(height):
        for columns in _spans(width):
            yield rows, columns


def _spans(length: int) -> list[slice]:
    if length <= MAX_TILE:
        return [slice(0, length)]
    count = -(-(length - OVERLAP) // (MAX_TILE - OVERLAP))
    starts = np.linspace(0, length - MAX_TILE, count).round().astype(int)
    return [slice(int(start), int(start) + MAX_TILE) for start in starts]


def _fill_tile(tile: Bytes, holes: Bytes, fill: Fill, stride: int) -> Floats:
    """Fill one tile; returns float32 ``H,W,3`` in [0, 1]."""
    height, width = holes.shape
    below, beside = -height % stride, -width % stride
    padded = np.pad(tile, ((0, below), (0, beside), (0, 0)), mode="symmetric")
    mask = np.pad(holes, ((0, below), (0, beside)), mode="symmetric").astype(np.float32)
    known = to_planes(padded[None]) * (1 - mask)
    planes: Floats = fill(known, mask[None, None])[0, :, :height, :width].transpose(1, 2, 0)
    return planes


def _feather(height: int, width: int) -> Floats:
    """Weights that fall linearly towards the tile's edges, over ``OVERLAP`` pixels; never zero."""

    def ramp(length: int) -> Floats:
        distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
        return np.minimum(distance / OVERLAP, 1).astype(np.float32)

    weights: Floats = np.minimum.outer(ramp(height), ramp(width))
    return weights


def _to_bytes(picture: Floats) -> Bytes:
    repaired: Bytes = to_bytes(picture.transpose(2, 0, 1)[None])[0]
    return repaired
