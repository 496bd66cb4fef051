"""What the hole looks like: the damage that each mask family stands for, painted onto a picture.

Blind repair has to find damage by its looks. One flat colour would make that trivial and would not
transfer (Wang et al., "VCNet: A Robust Approach to Blind Image Inpainting", 2020), so paint varies in
colour, grain and edge, and other pictures' pixels show through. Needs numpy and Pillow alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from components.inpainting.images import Bytes

Random = np.random.Generator
_Paint = npt.NDArray[np.float64]
_Renderer = Callable[[Bytes, Bytes, Random, Bytes], tuple[_Paint, _Paint]]


def render_damage(image: Bytes, mask: Bytes, family: str, rng: Random, other: Bytes) -> Bytes:
    """Paint a family's damage onto a picture.

    Parameters
    ----------
    image, mask:
        uint8 ``H,W,3`` and ``H,W`` of 0 and 1. Pixels outside the mask come back as they are.
    family:
        a family of ``masks.FAMILIES``, or ``custom``.
    other:
        uint8 ``H,W,3``, another picture, whose pixels may stand in the hole.
    """
    paint, alpha = _RENDERERS[family](image, mask, rng, other)
    blended = image + alpha[..., None] * mask[..., None] * (paint - image)
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8)


def _area(image: Bytes, mask: Bytes, rng: Random, other: Bytes) -> tuple[_Paint, _Paint]:
    """Large holes: plain paint, grainy paint, noise, or another picture, full or blended in."""
    kind = rng.choice(["paint", "grain", "noise", "picture", "blend"])
    if kind == "noise":
        return rng.uniform(0, 255, image.shape), _full(mask)
    if kind == "picture":
        return other.astype(float), _full(mask)
    if kind == "blend":
        return other.astype(float), _soft(mask) * rng.uniform(0.7, 1)
    return _flat(image, rng.integers(0, 256, 3)) + rng.normal(0, 12 if kind == "grain" else 2, image.shape), _full(mask)


def _brush(image: Bytes, mask: Bytes, rng: Random, other: Bytes) -> tuple[_Paint, _Paint]:
    """Strokes: a paint colour with grain and soft edges, or another picture rubbed in."""
    if rng.random() < 0.3:
        return other.astype(float), _soft(mask)
    return _flat(image, rng.integers(0, 256, 3)) + rng.normal(0, rng.uniform(2, 16), image.shape), _soft(mask)


def _scratch(image: Bytes, mask: Bytes, rng: Random, other: Bytes) -> tuple[_Paint, _Paint]:
    """Bare paper or black emulsion, its strength uneven, its edges soft."""
    grey = rng.integers(215, 256) if rng.random() < 0.6 else rng.integers(0, 40)
    paint = _flat(image, grey + rng.integers(-10, 11, 3)) + rng.normal(0, 6, image.shape)
    return paint, np.clip(_soft(mask) * rng.uniform(0.85, 1.15), 0.5, 1)


def _crack(image: Bytes, mask: Bytes, rng: Random, other: Bytes) -> tuple[_Paint, _Paint]:
    """A dark gap, lit from one side, or the pale ground beneath the paint."""
    ground = rng.integers(0, 60, 3) if rng.random() < 0.7 else rng.integers(180, 240) + rng.integers(-15, 16, 3)
    lit = mask.astype(float) - np.roll(mask, (1, 1), (0, 1))
    return _flat(image, ground) + 40 * lit[..., None] + rng.normal(0, 8, image.shape), _full(mask)


def _ink(image: Bytes, mask: Bytes, rng: Random, other: Bytes) -> tuple[_Paint, _Paint]:
    """Text in one colour, white, black or any; at times see-through like a watermark."""
    colour = rng.choice([np.full(3, 255), np.zeros(3, int), rng.integers(0, 256, 3)])
    strength = rng.uniform(0.6, 0.9) if rng.random() < 0.2 else 1.0
    return _flat(image, colour) + rng.normal(0, 1.5, image.shape), strength * _full(mask)


def _dropout(image: Bytes, mask: Bytes, rng: Random, other: Bytes) -> tuple[_Paint, _Paint]:
    """Lost blocks and lines: black, grey, noise, or the picture's own pixels from elsewhere, as codecs conceal."""
    kind = rng.choice(["flat", "noise", "shifted"])
    if kind == "noise":
        return rng.uniform(0, 255, image.shape), _full(mask)
    if kind == "shifted":
        shift = (int(rng.integers(1, len(image))), int(rng.integers(1, len(image))))
        return np.roll(image, shift, (0, 1)).astype(float), _full(mask)
    return _flat(image, np.full(3, rng.choice([0, 128, 255]))) + rng.normal(0, 1.5, image.shape), _full(mask)


def _enlarged(image: Bytes, mask: Bytes, rng: Random, other: Bytes) -> tuple[_Paint, _Paint]:
    """A small picture drawn large: every unknown pixel shows the known one before it, row and column."""
    rows, columns = np.flatnonzero((mask == 0).any(1)), np.flatnonzero((mask == 0).any(0))
    nearest = [
        known[np.clip(np.searchsorted(known, np.arange(len(mask)), "right") - 1, 0, None)] for known in (rows, columns)
    ]
    return image[np.ix_(*nearest)].astype(float), _full(mask)


_RENDERERS: dict[str, _Renderer] = {
    "center_box": _area,
    "box": _area,
    "boxes": _area,
    "strokes_thin": _brush,
    "strokes": _brush,
    "strokes_wide": _brush,
    "scratches": _scratch,
    "cracks": _crack,
    "text": _ink,
    "blocks": _dropout,
    "lines": _dropout,
    "half": _area,
    "downscale": _enlarged,
    "custom": _brush,
}


def _full(mask: Bytes) -> _Paint:
    return np.ones(mask.shape)


def _soft(mask: Bytes) -> _Paint:
    """Strength that falls towards the hole's edge, from 1 to about a half."""
    blurred = Image.fromarray(mask * 255).filter(ImageFilter.GaussianBlur(max(0.8, len(mask) / 160)))
    return np.clip(np.asarray(blurred) / 255, 0.4, 1)


def _flat(image: Bytes, colour: npt.ArrayLike) -> _Paint:
    return np.broadcast_to(np.asarray(colour, float), image.shape)
