"""Seeded mask families and what the damage under them looks like.

A mask is uint8 ``H,W`` of 0 and 1, 1 where the hole is. Every family is a function of the picture's
size and a generator: the same seed gives the same mask, and shapes scale with the picture. Needs
numpy and Pillow alone.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.inpainting.images import Bytes

Random = np.random.Generator
_LETTERS = np.array(list(string.ascii_letters + string.digits + "   "))


def box(size: int, rng: Random, side: int = 0) -> Bytes:
    """One square hole at a random place, the paper's mask (8 of 32 pixels, 64 of 128).

    ``side`` is in pixels; 0 draws one between a quarter and a half of the picture.
    """
    side = side or int(size * rng.uniform(0.25, 0.5))
    top, left = rng.integers(0, size - side + 1, 2)
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def strokes(size: int, rng: Random) -> Bytes:
    """Irregular brush strokes: random walks with a thick round brush.

    After the free-form masks of DeepFill v2 (Yu et al., "Free-Form Image Inpainting with Gated
    Convolution", 2019, algorithm 1): 4 to 12 vertices, brush 12 to 40 pixels at 256.
    """
    canvas, draw = _canvas(size)
    for _ in range(rng.integers(1, 4)):
        width = max(2, round(size * rng.uniform(12, 40) / 256))
        point, angle = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        points = [tuple(point)]
        for _ in range(rng.integers(4, 13)):
            angle += rng.uniform(-1.2, 1.2)
            reach = size * rng.uniform(0.05, 0.2)
            point = np.clip(point + reach * np.array([np.cos(angle), np.sin(angle)]), 0, size)
            points.append(tuple(point))
        draw.line(points, fill=1, width=width, joint="curve")
    return np.asarray(canvas)


def scratches(size: int, rng: Random) -> Bytes:
    """Long thin straight scratches, 1 to 2 pixels wide at up to 128 pixels, as on old photographs."""
    canvas, draw = _canvas(size)
    for _ in range(rng.integers(3, 9)):
        start, angle = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        end = start + size * rng.uniform(0.3, 1.0) * np.array([np.cos(angle), np.sin(angle)])
        width = max(1, round(size / 96)) * (1 if rng.random() < 0.7 else 2)
        draw.line([tuple(start), tuple(end)], fill=1, width=width)
    return np.asarray(canvas)


def text(size: int, rng: Random) -> Bytes:
    """Lines of overlaid text, in the font that ships inside Pillow."""
    canvas, draw = _canvas(size)
    draw.fontmode = "1"
    for _ in range(rng.integers(1, 4)):
        words = "".join(rng.choice(_LETTERS, 14))
        font = ImageFont.load_default(max(8, int(size * rng.uniform(0.12, 0.28))))
        draw.text((rng.uniform(-0.1, 0.2) * size, rng.uniform(0, 0.8) * size), words, fill=1, font=font)
    return np.asarray(canvas)


FAMILIES: dict[str, Callable[[int, Random], Bytes]] = {
    "box": box,
    "strokes": strokes,
    "scratches": scratches,
    "text": text,
}
THIN_FAMILIES = ("scratches", "text")


def draw_masks(family: str, count: int, size: int, rng: Random, *, box_size: int = 0) -> Bytes:
    """Draw ``count`` masks of one family, uint8 ``N,H,W``, none of them empty or full.

    ``box_size`` fixes the side of the box family in pixels; 0 leaves it random.
    """

    def draw() -> Bytes:
        mask = box(size, rng, box_size) if family == "box" else FAMILIES[family](size, rng)
        return mask if 0 < mask.sum() < mask.size else draw()

    return np.stack([draw() for _ in range(count)])


def damage(image: Bytes, mask: Bytes, family: str, rng: Random) -> Bytes:
    """Paint the damage that a mask family stands for onto a picture, uint8 ``H,W,3``.

    Scratches are near white or near black, text has one colour, boxes and strokes are smeared with
    noisy paint. Pixels outside the mask stay as they are.
    """
    if family == "scratches":
        colour = np.full(3, rng.choice([rng.integers(0, 30), rng.integers(225, 256)]))
    else:
        colour = rng.integers(0, 256, 3)
    paint = np.broadcast_to(colour, image.shape).astype(np.float64)
    if family in ("box", "strokes"):
        paint = paint + rng.normal(0, 12, image.shape)
    painted = np.clip(np.rint(paint), 0, 255).astype(np.uint8)
    return np.where(mask[..., None] != 0, painted, image)


def coverage(masks: Bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Share of hole pixels of each mask, ``N``, in [0, 1]."""
    shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = masks.reshape(len(masks), -1).mean(axis=1)
    return shares


def training_masks(
    families: Sequence[str], count: int, size: int, rng: Random, *, box_size: int = 0, thin_overlays: int = 1
) -> Bytes:
    """Draw ``count`` masks, uint8 ``N,H,W``, the families in equal shares, shuffled.

    Masks of the thin families are ``thin_overlays`` masks drawn over each other.
    """
    share = -(-count // len(families))
    drawn = []
    for family in families:
        layers = [
            draw_masks(family, share, size, rng, box_size=box_size)
            for _ in range(thin_overlays if family in THIN_FAMILIES else 1)
        ]
        drawn.append(np.maximum.reduce(layers))
    masks = np.concatenate(drawn)
    return masks[rng.permutation(len(masks))[:count]]


def _canvas(size: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("L", (size, size))
    return canvas, ImageDraw.Draw(canvas)
