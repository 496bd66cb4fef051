"""Repair pictures of any size with a network: tile by tile, the inside of large holes from a smaller copy.

Needs numpy and Pillow alone. Beside the picture, its mask and its repair, memory is needed for one byte a pixel and for
the tiles under way, however large the picture is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from components.inpainting.images import Bytes, Floats, resize, to_planes
from components.inpainting.tiling import (
    CELL,
    LARGE,
    REACH,
    SMALL,
    Cells,
    Tile,
    cells_of,
    cover_all,
    grow,
    plan_tiles,
    shrink,
    weights_of,
)

Fill = Callable[[Floats, Floats], Floats]
"""A network: float32 ``N,C,H,W`` in [0, 1] and ``N,1,H,W`` masks to ``N,C,H,W``."""

Batch = list[Tile]
"""Tiles of one shape that a network is given at a time."""

PAIR = 2
"""Small tiles in a batch: as much work as one at a time with fewer calls; more of them leave the processor's cache."""

_MANY = 32  # small tiles; of fewer, pairs could leave cores without work

Map = Callable[[Callable[[Batch], Floats], Iterable[Batch]], Iterator[Floats]]
"""Like ``map``: calls a function with every batch, maybe several at a time, and answers in their order."""


def repair_picture(image: Bytes, mask: Bytes, fill: Fill, stride: int, run: Map = map) -> Bytes:
    """Repair uint8 ``H,W,3`` where ``mask`` (``H,W``) is 1; every other pixel comes back bit for bit.

    ``fill`` is called on tiles around the holes only, mirrored up to a multiple of ``stride``, by ``run``.
    """
    repaired = image.copy()
    _repair(repaired, mask, mask, fill, stride, run)
    return repaired


def repair_blindly(image: Bytes, fill: Fill, stride: int, run: Map = map) -> Bytes:
    """Let a network that finds the damage itself repair uint8 ``H,W,3``; any pixel may come back changed.

    ``fill`` is called on overlapping tiles of the whole picture, with empty masks.
    """
    repaired = image.copy()
    _fill_everywhere(repaired, image, fill, stride, run)
    return repaired


def find_damage(image: Bytes, find: Fill, stride: int, run: Map = map) -> Bytes:
    """Let a network say where uint8 ``H,W,3`` is damaged: uint8 ``H,W``, 1 where it takes it for more likely than not.

    ``find`` answers with one channel of probabilities, and is called like a blind network.
    """
    likely = np.zeros((*image.shape[:2], 1), np.uint8)
    _fill_everywhere(likely, image, find, stride, run)
    return (likely[..., 0] >= 128).astype(np.uint8)


def _repair(picture: Bytes, holes: Bytes, wanted: Bytes, fill: Fill, stride: int, run: Map) -> None:
    """Repair ``picture`` in place where ``wanted`` is 1, a part of its ``holes``, whose other pixels stay unknown."""
    deep = shrink(cells_of(holes, "all"), REACH // CELL)
    if deep.any() and max(holes.shape) > LARGE.side:
        holes, wanted = _fill_deep(picture, holes, wanted, deep, fill, stride, run)
    batches = _pair(plan_tiles(wanted, holes))
    _fill_batches(_Blend(picture, wanted), picture, holes, batches, fill, stride, run)


def _pair(tiles: list[Tile]) -> list[Batch]:
    """Tiles in batches: small ones in pairs where there are many, all others alone."""
    small: list[Tile] = []
    alone: list[Batch] = []
    for tile in tiles:
        if tile.rows.stop - tile.rows.start == tile.columns.stop - tile.columns.start == SMALL.side:
            small.append(tile)
        else:
            alone.append([tile])
    size = PAIR if len(small) >= _MANY else 1
    return alone + [small[first : first + size] for first in range(0, len(small), size)]


def _fill_deep(
    picture: Bytes, holes: Bytes, wanted: Bytes, deep: Cells, fill: Fill, stride: int, run: Map
) -> tuple[Bytes, Bytes]:
    """Coarse to fine: fill the ``deep`` cells of the holes, which no tile sees across, from a copy of half the size.

    Returns the holes, and those of them that are wanted, without what was filled.
    """
    half, half_holes = _halve(picture, holes)
    around = grow(deep, REACH // CELL + 1)
    near = around.repeat(CELL // 2, axis=0).repeat(CELL // 2, axis=1)[: half.shape[0], : half.shape[1]]
    _repair(half, half_holes, half_holes * near, fill, stride, run)
    holes, wanted = holes.copy(), wanted.copy()
    for tile in cover_all(*holes.shape):
        cells = deep[_cells(tile.rows), _cells(tile.columns)]
        if cells.any():
            inside = _pixels(cells, tile)
            large = _enlarge(half, tile)
            picture[tile.rows, tile.columns][inside] = large[inside]
            holes[tile.rows, tile.columns][inside] = 0
            wanted[tile.rows, tile.columns][inside] = 0
    return holes, wanted


def _cells(span: slice) -> slice:
    return slice(span.start // CELL, -(-span.stop // CELL))


def _pixels(cells: Cells, tile: Tile) -> Cells:
    """The cells around a tile as its pixels."""
    spread = cells.repeat(CELL, axis=0).repeat(CELL, axis=1)
    above, before = tile.rows.start % CELL, tile.columns.start % CELL
    height, width = tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start
    return spread[above : above + height, before : before + width]


def _halve(picture: Bytes, holes: Bytes) -> tuple[Bytes, Bytes]:
    """Half as high and wide: the means of the known pixels, and holes where no pixel is known."""
    height, width = -(-holes.shape[0] // 2), -(-holes.shape[1] // 2)
    half, half_holes = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.uint8)
    for top in range(0, height, LARGE.side):  # in strips, since its sums take eight times the memory
        rows = slice(2 * top, 2 * (top + LARGE.side))
        known = _blocks(1 - holes[rows])
        sums = (_blocks(picture[rows]) * known[..., None]).sum(axis=(1, 3), dtype=np.uint16)
        count = known.sum(axis=(1, 3), dtype=np.uint16)
        strip = slice(top, top + LARGE.side)
        half[strip] = (sums + count[..., None] // 2) // np.maximum(count, 1)[..., None]
        half_holes[strip] = count == 0
    return half, half_holes


def _blocks(picture: Bytes) -> Bytes:
    """``H,W,...`` as ``H/2,2,W/2,2,...``, the last row and column repeated where they are odd."""
    below, beside = picture.shape[0] % 2, picture.shape[1] % 2
    padded = np.pad(picture, ((0, below), (0, beside), *((0, 0),) * (picture.ndim - 2)), mode="edge")
    height, width = padded.shape[:2]
    return padded.reshape(height // 2, 2, width // 2, 2, *picture.shape[2:])


def _enlarge(half: Bytes, tile: Tile) -> Bytes:
    """A tile of the picture out of its half-sized copy."""
    spans = []
    for span, length in ((tile.rows, half.shape[0]), (tile.columns, half.shape[1])):
        spans.append(slice(max(span.start // 2 - CELL, 0), min(-(-span.stop // 2) + CELL, length)))
    part = half[spans[0], spans[1]]
    large = resize(part, 2 * part.shape[0], 2 * part.shape[1])
    above, before = tile.rows.start - 2 * spans[0].start, tile.columns.start - 2 * spans[1].start
    height, width = tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start
    return large[above : above + height, before : before + width]


def _fill_everywhere(target: Bytes, image: Bytes, fill: Fill, stride: int, run: Map) -> None:
    batches = [[tile] for tile in cover_all(*image.shape[:2])]
    wanted, no_holes = np.ones(image.shape[:2], np.uint8), np.broadcast_to(np.uint8(0), image.shape[:2])
    _fill_batches(_Blend(target, wanted), image, no_holes, batches, fill, stride, run)


def _fill_batches(
    blend: _Blend, image: Bytes, holes: Bytes, batches: list[Batch], fill: Fill, stride: int, run: Map
) -> None:
    """Fill tiles of ``image`` where they have ``holes``, and blend them into a picture, which may be the same."""

    def fill_batch(batch: Batch) -> Floats:
        windows = [(tile.rows, tile.columns) for tile in batch]
        pictures, masks = (np.stack([whole[window] for window in windows]) for whole in (image, holes))
        return _fill_batch(pictures, masks, fill, stride)

    for batch, filled in zip(batches, run(fill_batch, batches), strict=True):
        for tile, answer in zip(batch, filled, strict=True):
            blend.add(tile, answer)


class _Blend:
    """Puts tiles into a picture, where they are ``wanted``, as their running mean weighted by ``weights_of``."""

    def __init__(self, picture: Bytes, wanted: Bytes) -> None:
        self._picture, self._wanted = picture, wanted
        self._weights = np.zeros(wanted.shape, np.uint8)

    def add(self, tile: Tile, filled: Floats) -> None:
        """Blend in what the network made of a tile, ``H,W,C`` in [0, 1], clipped."""
        window = tile.rows, tile.columns
        wanted = self._wanted[window] != 0
        own = weights_of(tile, *self._wanted.shape)[wanted].astype(np.float32)
        before = self._weights[window][wanted]
        share = (own / (own + before))[:, None]
        old = self._picture[window][wanted].astype(np.float32)
        new = np.clip(filled[wanted], 0, 1) * np.float32(255)
        self._picture[window][wanted] = np.rint(old + share * (new - old))
        self._weights[window][wanted] = np.minimum(own + before, 255)


def _fill_batch(pictures: Bytes, holes: Bytes, fill: Fill, stride: int) -> Floats:
    """Fill tiles of one shape, uint8 ``N,H,W,3`` and ``N,H,W``; returns float32 ``N,H,W,C`` in [0, 1]."""
    height, width = holes.shape[1:]
    around = ((0, 0), (0, -height % stride), (0, -width % stride))
    masks = np.pad(holes, around, mode="symmetric")[:, None].astype(np.float32)
    known = to_planes(np.pad(pictures, (*around, (0, 0)), mode="symmetric")) * (1 - masks)
    planes: Floats = fill(known, masks)[:, :, :height, :width].transpose(0, 2, 3, 1)
    return planes
