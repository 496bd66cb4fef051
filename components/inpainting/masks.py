"""Seeded mask families: where the holes are.

A mask is uint8 ``H,W`` of 0 and 1, 1 where the hole is. A family draws one of a given size that covers
about a given share of the picture; the same generator state gives the same mask, and shapes scale with
the picture (lengths below are for 256 pixels). Needs numpy and Pillow alone.
"""

from __future__ import annotations

import math
import string
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.inpainting.images import Bytes

Random = np.random.Generator
Shares = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

BINS = tuple((low / 10, (low + 1) / 10) for low in range(6))
"""Coverage bins of the NVIDIA irregular mask set (Liu et al., "Image Inpainting for Irregular Holes Using
Partial Convolutions", 2018): shares of hole pixels, 0-10 % ... 50-60 %."""

_MAX_SHAPES = 2000
_TRIES = 40
_LETTERS = np.array(list(string.ascii_letters + string.digits))


def center_box(size: int, share: float, rng: Random) -> Bytes:
    """One square hole in the middle: the paper's 64 of 128 pixels, where no other side is asked for."""
    return _box(size, round(size * math.sqrt(share)), None)


def box(size: int, share: float, rng: Random) -> Bytes:
    """One square hole at a random place, the paper's mask per batch (8 of 32 pixels)."""
    return _box(size, round(size * math.sqrt(share)), rng)


def boxes(size: int, share: float, rng: Random) -> Bytes:
    """Several rectangles of 30 to 150 pixels, which may overlap.

    After LaMa's random boxes (Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier
    Convolutions", 2022).
    """
    longest = min(150.0, 256 * math.sqrt(share))

    def draw(canvas: Image.Image) -> Iterator[None]:
        while True:
            height, width = (max(2, round(size * rng.uniform(min(30.0, longest / 2), longest) / 256)) for _ in range(2))
            top, left = rng.integers(0, max(1, size - height + 1)), rng.integers(0, max(1, size - width + 1))
            canvas.paste(1, (int(left), int(top), int(left) + width, int(top) + height))
            yield

    return _until_covered(size, share, draw)


def strokes_thin(size: int, share: float, rng: Random) -> Bytes:
    """Many thin brush strokes, at most 10 pixels wide: LaMa's narrow evaluation masks (see ``boxes``)."""
    return _strokes(size, share, rng, widths=(4, 10), vertices=(4, 12), reach=(0.05, 0.2))


def strokes(size: int, share: float, rng: Random) -> Bytes:
    """Brush strokes 12 to 40 pixels wide, 4 to 12 vertices each.

    After DeepFill v2 (Yu et al., "Free-Form Image Inpainting with Gated Convolution", 2019, algorithm 1).
    """
    return _strokes(size, share, rng, widths=(12, 40), vertices=(4, 12), reach=(0.05, 0.2))


def strokes_wide(size: int, share: float, rng: Random) -> Bytes:
    """A few thick strokes, 40 to 105 pixels wide: the upper part of LaMa's 5 to 105 (see ``boxes``)."""
    return _strokes(size, share, rng, widths=(40, 105), vertices=(1, 5), reach=(0.05, 0.25))


def scratches(size: int, share: float, rng: Random) -> Bytes:
    """Long straight scratches, 1 to 2 pixels wide at up to 128 pixels, as on old film and prints."""

    def draw(canvas: Image.Image) -> Iterator[None]:
        pen = ImageDraw.Draw(canvas)
        while True:
            start, angle = rng.uniform(0, size, 2), rng.uniform(0, 2 * math.pi)
            end = _step(start, angle, size * rng.uniform(0.3, 1.0))
            pen.line([_point(start), _point(end)], fill=1, width=_hairline(size) * (1 if rng.random() < 0.7 else 2))
            yield

    return _until_covered(size, share, draw)


def cracks(size: int, share: float, rng: Random) -> Bytes:
    """Branching cracks, as in old photographs and frescoes.

    A crack is a walk that keeps its direction but for small turns; at one vertex in seven it sends out
    a branch, thinner than itself, at 30 to 70 degrees (own construction).
    """

    def draw(canvas: Image.Image) -> Iterator[None]:
        pen = ImageDraw.Draw(canvas)
        while True:
            width = _hairline(size) * int(rng.integers(1, 4))
            walks = [(rng.uniform(0, size, 2), rng.uniform(0, 2 * math.pi), width)]
            while walks:
                point, angle, width = walks.pop()
                for _ in range(rng.integers(6, 24)):
                    angle += rng.uniform(-0.5, 0.5)
                    end = _step(point, angle, size * rng.uniform(0.02, 0.06))
                    pen.line([_point(point), _point(end)], fill=1, width=width)
                    yield
                    if end.min() < 0 or end.max() > size:
                        break
                    point = end
                    if rng.random() < 1 / 7 and len(walks) < 8:
                        turn = math.radians(rng.uniform(30, 70)) * rng.choice([-1, 1])
                        walks.append((point, angle + turn, max(_hairline(size), width - _hairline(size))))

    return _until_covered(size, share, draw)


def text(size: int, share: float, rng: Random) -> Bytes:
    """Lines of overlaid text, level or slanted, in the font that ships inside Pillow (Aileron)."""

    def draw(canvas: Image.Image) -> Iterator[None]:
        while True:
            font = ImageFont.load_default(max(8, round(size * rng.uniform(0.08, 0.25))))
            words = " ".join("".join(rng.choice(_LETTERS, rng.integers(2, 9))) for _ in range(4))
            layer = Image.new("1", (size, size))
            place = (rng.uniform(-0.2, 0.3) * size, rng.uniform(-0.05, 0.9) * size)
            ImageDraw.Draw(layer).text(_point(place), words, fill=1, font=font)
            if rng.random() < 0.3:
                layer = layer.rotate(round(rng.uniform(-30, 30), 1))
            canvas.paste(1, mask=layer)
            yield

    return _until_covered(size, share, draw)


def blocks(size: int, share: float, rng: Random) -> Bytes:
    """Dropped blocks on a codec's grid (macroblocks of 8, 16 or 32 pixels), in runs of one to four."""
    side = max(2, size * int(rng.choice([8, 16, 32])) // 256)
    cells = -(-size // side)

    def draw(canvas: Image.Image) -> Iterator[None]:
        while True:
            row, column = (int(cell) for cell in rng.integers(0, cells, 2))
            for cell in range(column, min(cells, column + int(rng.integers(1, 5)))):
                canvas.paste(1, (cell * side, row * side, (cell + 1) * side, (row + 1) * side))
                yield

    return _until_covered(size, share, draw)


def lines(size: int, share: float, rng: Random) -> Bytes:
    """Dropped lines across the whole picture, 1 to 8 pixels thick, all level or all upright."""
    upright = rng.random() < 0.5

    def draw(canvas: Image.Image) -> Iterator[None]:
        while True:
            thick = max(1, round(size * rng.uniform(1, 8) / 256))
            start = int(rng.integers(0, size))
            canvas.paste(1, (start, 0, start + thick, size) if upright else (0, start, size, start + thick))
            yield

    return _until_covered(size, share, draw)


def half(size: int, share: float, rng: Random) -> Bytes:
    """One half of the picture: left, right, upper or lower."""
    mask = np.zeros((size, size), np.uint8)
    mask[: size // 2] = 1
    return np.ascontiguousarray(np.rot90(mask, int(rng.integers(0, 4))))


def downscale(size: int, share: float, rng: Random) -> Bytes:
    """The paper's "scaled image": one pixel in ``s`` by ``s`` is known, ``s`` 2 to 4, the rest is hole."""
    scale = int(rng.integers(2, 5))
    top, left = rng.integers(0, scale, 2)
    mask = np.ones((size, size), np.uint8)
    mask[top::scale, left::scale] = 0
    return mask


@dataclass(frozen=True)
class Family:
    """How a family draws, and the shares of the picture it can cover; equal ends: it has one only."""

    draw: Callable[[int, float, Random], Bytes]
    low: float
    high: float

    @property
    def bins(self) -> list[tuple[float, float]]:
        """The coverage bins the family reaches, cut to its range; none where its coverage is fixed."""
        cut = [(max(low, self.low), min(high, self.high)) for low, high in BINS]
        return [(low, high) for low, high in cut if high - low > 0.001]


FAMILIES: dict[str, Family] = {
    "center_box": Family(center_box, 0.25, 0.25),
    "box": Family(box, 1 / 16, 1 / 4),
    "boxes": Family(boxes, 0.03, 0.6),
    "strokes_thin": Family(strokes_thin, 0.02, 0.4),
    "strokes": Family(strokes, 0.03, 0.6),
    "strokes_wide": Family(strokes_wide, 0.08, 0.6),
    "scratches": Family(scratches, 0.005, 0.15),
    "cracks": Family(cracks, 0.005, 0.15),
    "text": Family(text, 0.02, 0.3),
    "blocks": Family(blocks, 0.02, 0.6),
    "lines": Family(lines, 0.02, 0.6),
    "half": Family(half, 0.5, 0.5),
    "downscale": Family(downscale, 0.75, 0.75),
}
"""Every family drawn here; ``MaskMixture`` knows one more, ``custom``: masks that a user brings."""

CUSTOM = "custom"


@dataclass(frozen=True)
class MaskMixture:
    """Mask families with weights, for one picture size.

    Parameters
    ----------
    weights:
        family name to its share among training masks; shares need not sum to 1.
    size:
        height and width of the masks, pixels.
    box_size:
        side of ``box`` and ``center_box`` in pixels; 0 leaves it to the family.
    custom:
        uint8 ``M,H,W``, the user's own masks; needed where ``weights`` names ``custom``.
    """

    weights: Mapping[str, float]
    size: int
    box_size: int = 0
    custom: Bytes | None = None

    def draw(self, count: int, rng: Random) -> Bytes:
        """``count`` training masks, uint8 ``N,H,W``, shuffled: families by weight, coverage uniform in their range."""
        shares = np.array(list(self.weights.values())) / sum(self.weights.values())
        ends = np.rint(np.cumsum(shares) * count).astype(int)
        masks = []
        for family, number in zip(self.weights, np.diff(ends, prepend=0), strict=True):
            low, high = (FAMILIES[family].low, FAMILIES[family].high) if family in FAMILIES else (0.0, 1.0)
            masks += [self._draw_one(family, low, high, rng) for _ in range(number)]
        return np.stack([masks[i] for i in rng.permutation(len(masks))])

    def draw_fixed(self, family: str, keys: Sequence[Sequence[int]]) -> Bytes:
        """One mask per key, uint8 ``N,H,W``, their coverage spread over the bins that the family reaches.

        A mask depends on its key alone, whatever the others are: its numbers seed it, and
        their sum chooses its bin, so that keys which count up in the last take the bins in turn.
        """
        bins = FAMILIES[family].bins if family in FAMILIES else self._custom_bins()
        masks = []
        for key in keys:
            rng = np.random.default_rng([zlib.crc32(family.encode()), *key])
            masks.append(self._draw_one(family, *(bins[sum(key) % len(bins)] if bins else (0.0, 1.0)), rng))
        return np.stack(masks)

    def _draw_one(self, family: str, low: float, high: float, rng: Random) -> Bytes:
        if family == CUSTOM:
            return self._pick_custom(low, high, rng)
        known = FAMILIES[family]
        if self.box_size and family in ("box", "center_box"):
            return _box(self.size, self.box_size, rng if family == "box" else None)
        if known.low == known.high:
            return known.draw(self.size, known.low, rng)
        best, distance = None, math.inf
        for _ in range(_TRIES):
            mask = known.draw(self.size, rng.uniform(low, high), rng)
            share = float(mask.mean())
            if low <= share < high and 0 < share < 1:
                return mask
            missed = max(low - share, share - high)
            if 0 < share < 1 and missed < distance:
                best, distance = mask, missed
        assert best is not None, f"{family} drew {_TRIES} masks that are empty or full"
        return best

    def _pick_custom(self, low: float, high: float, rng: Random) -> Bytes:
        assert self.custom is not None, "custom masks are weighted but none are given"
        shares = self._custom_shares
        fitting = np.flatnonzero((shares >= low) & (shares < high))
        mask = self.custom[rng.choice(fitting if len(fitting) else len(shares))]
        return np.ascontiguousarray(mask[:, ::-1] if rng.random() < 0.5 else mask)

    @cached_property
    def _custom_shares(self) -> Shares:
        assert self.custom is not None, "custom masks are weighted but none are given"
        return coverage(self.custom)

    def _custom_bins(self) -> list[tuple[float, float]]:
        """The bins that hold custom masks; what covers more than they reach is left to training."""
        shares = self._custom_shares
        return [(low, high) for low, high in BINS if np.any((shares >= low) & (shares < high))]


def coverage(masks: Bytes) -> Shares:
    """Share of hole pixels of each mask of ``N,H,W``, in [0, 1]."""
    shares: Shares = masks.reshape(len(masks), -1).mean(axis=1)
    return shares


def _box(size: int, side: int, rng: Random | None) -> Bytes:
    """A square hole of ``side`` pixels, anywhere, or in the middle where no generator is given."""
    top, left = rng.integers(0, size - side + 1, 2) if rng else ((size - side) // 2, (size - side) // 2)
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def _strokes(
    size: int, share: float, rng: Random, *, widths: tuple[int, int], vertices: tuple[int, int], reach: Any
) -> Bytes:
    """Random walks with a round brush, segment by segment until ``share`` is covered."""

    def draw(canvas: Image.Image) -> Iterator[None]:
        pen = ImageDraw.Draw(canvas)
        while True:
            width = max(2, round(size * rng.uniform(*widths) / 256))
            point, angle = rng.uniform(0, size, 2), rng.uniform(0, 2 * math.pi)
            for _ in range(rng.integers(vertices[0], vertices[1] + 1)):
                angle += rng.uniform(-1.2, 1.2)
                end = np.clip(_step(point, angle, size * rng.uniform(*reach)), 0, size)
                pen.line([_point(point), _point(end)], fill=1, width=width)
                for x, y in (_point(point), _point(end)):
                    pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=1)
                point = end
                yield

    return _until_covered(size, share, draw)


def _until_covered(size: int, share: float, draw: Callable[[Image.Image], Iterator[None]]) -> Bytes:
    """Let ``draw`` add one shape after the other to a canvas until ``share`` of it is covered."""
    canvas = Image.new("L", (size, size))
    for number, _ in enumerate(draw(canvas)):
        if number >= _MAX_SHAPES or np.asarray(canvas).mean() >= share:
            break
    return np.asarray(canvas)


def _step(point: np.ndarray[Any, Any], angle: float, length: float) -> np.ndarray[Any, Any]:
    return point + length * np.array([math.cos(angle), math.sin(angle)])


def _point(point: Sequence[float] | np.ndarray[Any, Any]) -> tuple[float, float]:
    """A point as Pillow draws it, rounded so that no machine's last bit decides over a pixel."""
    return round(float(point[0]), 2), round(float(point[1]), 2)


def _hairline(size: int) -> int:
    return max(1, round(size / 96))
