"""Which windows of a picture a network of limited reach has to see, so that every hole is repaired, and little else.

Needs numpy alone. Plans are made on a grid of cells of ``CELL`` pixels: a tile is a square window, its core the part
of it that it repairs for good, its margin the known surroundings that it shows to the network, blended with its
neighbours. What lies at the picture's border belongs to the core, since there is nothing beyond it to be seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.inpainting.images import Bytes

CELL = 8
"""Pixels of a side of a cell."""

_OVERHEAD = 8  # cells; many small operations take their time on the smallest tile too

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

_THICKNESSES = ((64, (LARGE,)), (16, (MEDIUM, LARGE)), (8, (THIN, MEDIUM, LARGE)), (0, (SMALL, THIN, MEDIUM, LARGE)))
"""Holes at least so many pixels across, and the tiles that show enough of what surrounds them."""


class Tile(NamedTuple):
    """A window of a picture, ``rows`` by ``columns``, and how wide its margin is."""

    rows: slice
    columns: slice
    margin: int


def plan_tiles(wanted: Bytes, holes: Bytes) -> list[Tile]:
    """Tiles whose cores cover every pixel where ``wanted`` (uint8 ``H,W``) is not 0.

    ``holes`` (``H,W``), which contains it, says how thick they are: thick ones get large tiles, and thin ones whatever
    adds up to the smallest area. Those of the thickest holes come first.
    """
    height, width = wanted.shape
    occupied, full = cells_of(wanted, "any"), cells_of(holes, "all")
    planned: list[Tile] = []
    for thickness, sizes in _THICKNESSES:
        here = occupied & (_as_thick(full, thickness // CELL) if thickness else True)
        if not here.any():
            continue
        for origin, size in _cheapest(here, sizes):
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


def _cheapest(here: Cells, sizes: Sequence[TileSize]) -> Iterable[tuple[tuple[int, int], TileSize]]:
    """Origins, in cells, of tiles whose cores hold all that is set: small, but where a larger one costs less than they.

    ``sizes`` come in ascending order. Every cell begins as a tile of its own that costs more than any.
    """
    count = int(here.sum())
    owners = np.zeros(here.shape, np.int32)  # 0: nobody
    owners[here] = np.arange(1, count + 1)
    num_cells, costs = [0, *[1] * count], [0.0, *[math.inf] * count]
    tiles: dict[int, tuple[tuple[int, int], TileSize]] = {}
    for size in sizes:
        cost = _cost(here.shape, size)
        for core in _cover(here, size):
            inside = owners[core]
            whole = [
                n for n, count in zip(*np.unique(inside, return_counts=True), strict=True) if num_cells[n] == count
            ]
            if sum(costs[n] for n in whole) > cost:
                held = np.isin(inside, whole)
                inside[held] = len(costs)
                cells = np.argwhere(held) + np.array([core[0].start, core[1].start])
                tiles[len(costs)] = _centred(cells, here.shape, size), size
                num_cells.append(len(cells))
                costs.append(cost)
                for number in whole:
                    tiles.pop(number, None)
    return tiles.values()


def _cost(shape: tuple[int, ...], size: TileSize) -> int:
    """What a tile costs, in cells: its area, and what small ones cost beyond that."""
    side = size.side // CELL
    return min(side, shape[0]) * min(side, shape[1]) + _OVERHEAD


def _cover(here: Cells, size: TileSize) -> list[tuple[slice, slice]]:
    """Cores of tiles of one size that hold all that is set: those that are fewer, by two greedy ways to find them."""
    return min((_walk(here, size, follow) for follow in (False, True)), key=len)


def _walk(here: Cells, size: TileSize, follow: bool) -> list[tuple[slice, slice]]:
    """Cores that hold all that is set; the uppermost cell that is left lies in the first row of the next.

    Its columns begin with the leftmost cell that is left in those rows, or, to ``follow`` lines, are those that hold
    the most of what is left, the uppermost cell and what lies beside it among them.
    """
    cores, left = [], here.copy()
    (above, below), (before, after) = (_cores(length, size) for length in here.shape)
    side, margin, (height, width) = size.side // CELL, size.margin // CELL, here.shape
    for row in np.flatnonzero(left.any(axis=1)).tolist():
        while left[row].any():
            column = int(left[row].argmax())
            origin = _within(row - margin, height, side)
            rows = slice(above[origin], below[origin])
            if follow:
                length = int(np.append(left[row, column:], False).argmin())
                end = column + min(length, side - 2 * margin) - 1
                first, last = _within(end - side + margin + 1, width, side), _within(column - margin, width, side)
                held = np.concatenate([[0], left[rows].sum(axis=0).cumsum()])
                near = slice(first, last + 1)
                origin = first + int(np.argmax(held[after[near]] - held[before[near]]))
            else:
                origin = _within(int(left[rows].any(axis=0).argmax()) - margin, width, side)
            columns = slice(before[origin], after[origin])
            left[rows, columns] = False
            cores.append((rows, columns))
    return cores


def _centred(cells: _Points, shape: tuple[int, ...], size: TileSize) -> tuple[int, int]:
    """Where a tile begins in whose middle some cells lie."""
    first, last, side = cells.min(axis=0), cells.max(axis=0), size.side // CELL
    row, column = (_within((first[axis] + last[axis] + 1 - side) // 2, shape[axis], side) for axis in (0, 1))
    return row, column


def _cores(length: int, size: TileSize) -> tuple[_Points, _Points]:
    """The first cell along one axis that a tile repairs for good, and the one after the last, by where it begins."""
    side, margin = size.side // CELL, size.margin // CELL
    origins = np.arange(max(length - side, 0) + 1)
    return np.where(origins, origins + margin, 0), np.where(origins + side < length, origins + side - margin, length)


def _within(origin: int, length: int, side: int) -> int:
    """Where a tile begins that is not to reach over a border."""
    return int(min(max(origin, 0), max(length - side, 0)))


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
