"""Which windows of a picture a network of limited reach has to see, so that every hole is repaired, and little else.

Needs numpy alone. Plans are made on a grid of cells of ``CELL`` pixels: a tile is a square window, its core the part
of it that it repairs for good, its margin the known surroundings that it shows to the network, blended with its
neighbours. What lies at the picture's border belongs to the core, since there is nothing beyond it to be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.inpainting.images import Bytes

CELL = 8
"""Pixels of a side of a cell."""

_OVERHEAD = 64  # cells; many small operations take their time on the smallest tile too

Cells = npt.NDArray[np.bool_]
_Points = npt.NDArray[np.intp]


@dataclass(frozen=True)
class TileSize:
    """How large a tile is and how much of every side is margin, in pixels, multiples of ``CELL``."""

    side: int
    margin: int


SMALL, THIN = TileSize(64, 8), TileSize(128, 16)
MEDIUM = TileSize(256, 56)
LARGE = TileSize(512, 96)
"""No tile is larger, so that memory stays bounded."""

REACH = LARGE.margin
"""Hole pixels farther than this from every known one are filled from a smaller copy of the picture."""

_THICKNESSES = ((64, (LARGE,)), (16, (LARGE, MEDIUM)), (8, (LARGE, MEDIUM, THIN)), (0, (LARGE, MEDIUM, THIN, SMALL)))
"""Holes at least so many pixels across, and the tiles that show enough of what surrounds them."""


class Tile(NamedTuple):
    """A window of a picture, ``rows`` by ``columns``, and how wide its margin is."""

    rows: slice
    columns: slice
    margin: int


def plan_tiles(wanted: Bytes, holes: Bytes) -> list[Tile]:
    """Tiles whose cores cover every pixel where ``wanted`` (uint8 ``H,W``) is not 0.

    ``holes`` (``H,W``), which contains it, says how thick they are: thick ones get large tiles, and thin ones whatever
    adds up to the smallest area. Tiles come from top to bottom, the largest first.
    """
    height, width = wanted.shape
    occupied, full = cells_of(wanted, "any"), cells_of(holes, "all")
    planned: list[Tile] = []
    for thickness, sizes in _THICKNESSES:
        here = occupied & (_as_thick(full, thickness // CELL) if thickness else True)
        for origin, size in _cheapest(np.argwhere(here), occupied.shape, sizes):
            planned.append(_tile(origin, size, height, width))
        occupied &= ~here
    return planned


def cover_all(height: int, width: int, size: TileSize = LARGE) -> list[Tile]:
    """Tiles of one size whose cores cover the whole of a picture, evenly spread."""
    rows, columns = _spread(height, size), _spread(width, size)
    return [Tile(row, column, size.margin) for row in rows for column in columns]


def cells_of(mask: Bytes, which: str) -> Cells:
    """The cells of which ``any`` or ``all`` pixels are not 0; those at the far borders may be smaller."""
    height, width = mask.shape
    filler = which == "all"
    bits = np.full((height, -(-width // CELL) * CELL), filler)
    np.not_equal(mask, 0, out=bits[:, :width])
    eights = bits.view(np.uint64)  # eight pixels beside each other at once
    reduce = np.bitwise_and if filler else np.bitwise_or
    rows = reduce.reduceat(eights, np.arange(0, height, CELL), axis=0)
    cells: Cells = rows == np.uint64(0x0101010101010101) if filler else rows != 0
    return cells


def grow(cells: Cells, radius: int) -> Cells:
    """The cells at most ``radius`` rows and columns from one that is set."""
    return ~shrink(~cells, radius)


def shrink(cells: Cells, radius: int) -> Cells:
    """The cells all whose neighbours, up to ``radius`` rows and columns away, are set; beyond the border all are."""
    return _windows(np.pad(cells, radius, constant_values=True), 2 * radius + 1)


def weights_of(tile: Tile, height: int, width: int) -> Bytes:
    """How much a tile's repair counts beside its neighbours', 1 to 63: less towards its sides inside the picture."""
    rows = _ramp(tile.rows, tile.margin, height)
    columns = _ramp(tile.columns, tile.margin, width)
    weights: Bytes = np.minimum.outer(rows, columns)
    return weights


def _ramp(span: slice, margin: int, length: int) -> Bytes:
    distance = np.full(span.stop - span.start, margin)
    steps = np.arange(len(distance))
    if span.start > 0:
        distance = np.minimum(distance, steps)
    if span.stop < length:
        distance = np.minimum(distance, steps[::-1])
    return (1 + 62 * distance // margin).astype(np.uint8)


def _windows(cells: Cells, side: int) -> Cells:
    """For every square of ``side`` cells whether all of it is set."""
    for axis in (0, 1):
        cells = np.asarray(np.lib.stride_tricks.sliding_window_view(cells, side, axis=axis).all(axis=-1))
    return cells


def _as_thick(full: Cells, side: int) -> Cells:
    """The cells in, or next to, a square of ``side`` cells that is all hole, be it beyond the picture's border."""
    padded = np.pad(full, side, mode="edge")
    squares = np.pad(_windows(padded, side), side - 1)
    opened = ~_windows(~squares, side)
    inner = opened[side:-side, side:-side]
    return grow(inner, 1)


def _cheapest(
    points: _Points, shape: tuple[int, ...], sizes: tuple[TileSize, ...]
) -> Iterator[tuple[tuple[int, int], TileSize]]:
    """Origins, in cells, of tiles whose cores hold all points; a tile is replaced by smaller ones that cost less."""
    size, *smaller = sizes
    for origin, inside in _cover(points, shape, size):
        finer = list(_cheapest(inside, shape, tuple(smaller))) if smaller else []
        if finer and sum(_cost(shape, s) for _, s in finer) < _cost(shape, size):
            yield from finer
        else:
            yield origin, size


def _cost(shape: tuple[int, ...], size: TileSize) -> int:
    """What a tile costs, in cells: its area, and what small ones cost beyond that."""
    side = size.side // CELL
    return min(side, shape[0]) * min(side, shape[1]) + _OVERHEAD


def _cover(points: _Points, shape: tuple[int, ...], size: TileSize) -> Iterator[tuple[tuple[int, int], _Points]]:
    """Bands of rows, in each of them spans of columns; every tile lies in the middle of the points that it holds."""
    for band in _bands(points, 0, shape[0], size):
        for inside in _bands(band, 1, shape[1], size):
            row, column = (_centred(inside[:, axis], shape[axis], size) for axis in (0, 1))
            yield (row, column), inside


def _bands(points: _Points, axis: int, length: int, size: TileSize) -> Iterator[_Points]:
    """Split points along an axis so that the core of one tile holds each part."""
    side, margin = size.side // CELL, size.margin // CELL
    while len(points):
        at = points[:, axis]
        origin = min(max(int(at.min()) - margin, 0), max(length - side, 0))
        end = length if origin + side >= length else origin + side - margin
        yield points[at < end]
        points = points[at >= end]


def _centred(at: npt.NDArray[np.intp], length: int, size: TileSize) -> int:
    side = size.side // CELL
    return min(max((int(at.min()) + int(at.max()) + 1 - side) // 2, 0), max(length - side, 0))


def _tile(origin: tuple[int, int], size: TileSize, height: int, width: int) -> Tile:
    """The pixels of a tile; one that would reach over the far border lies at it."""
    spans = []
    for start, length in zip(origin, (height, width), strict=True):
        first = min(start * CELL, max(length - size.side, 0))
        spans.append(slice(first, min(first + size.side, length)))
    return Tile(spans[0], spans[1], size.margin)


def _spread(length: int, size: TileSize) -> list[slice]:
    if length <= size.side:
        return [slice(0, length)]
    count = -(-(length - size.margin) // (size.side - size.margin))
    starts = np.linspace(0, length - size.side, count).round().astype(int)
    return [slice(int(start), int(start) + size.side) for start in starts]
