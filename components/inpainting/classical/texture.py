"""Texture synthesis pixel by pixel (Efros & Leung, "Texture Synthesis by Non-parametric Sampling", 1999)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, convolve

from components.inpainting.classical.patches import KnownPatches
from components.inpainting.images import Bytes

_SIDE = 9  # of the window that must look alike, pixels: the size of the texture's largest regular feature
_SIGMA = _SIDE / 6.4  # of the window's Gaussian weights, as in the paper
_TOLERANCE = 0.1  # windows up to so much worse than the best are drawn from, as in the paper
_SLACK = 0.5  # squared grey levels: equally good, whatever their quotient
_MOST = 4000  # windows that are searched


def texture_synthesis(image: Bytes, mask: Bytes, seed: int = 0) -> Bytes:
    """Give every hole pixel the colour of a known pixel whose surroundings look like its own.

    From the hole's rim inwards, those with most known neighbours first; which of the similar windows is taken is
    drawn at random, from ``seed``. uint8 ``H,W,3`` and ``H,W`` to uint8 ``H,W,3``.
    """
    random = np.random.default_rng(seed)
    known = KnownPatches(image, mask, _SIDE, _MOST, random)
    side = known.side
    half, centre = side // 2, side * side // 2 * 3
    window = _gaussian(side)
    padded = np.pad(image.astype(np.float32), ((half, half), (half, half), (0, 0)))
    sound = np.pad(mask == 0, half).astype(np.float32)
    for top, left in _onion(mask, random):
        here = slice(top, top + side), slice(left, left + side)
        weights = np.repeat((window * sound[here]).ravel(), 3)
        distances = known.distances(padded[here].ravel(), weights)
        alike = np.flatnonzero(distances <= distances.min() * (1 + _TOLERANCE) + _SLACK)
        padded[top + half, left + half] = known.pixels[random.choice(alike), centre : centre + 3]
        sound[top + half, left + half] = 1
    filled: Bytes = padded[half : half + mask.shape[0], half : half + mask.shape[1]].astype(np.uint8)
    return filled


def _gaussian(side: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    offsets = np.arange(side) - side // 2
    bell = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    return np.outer(bell, bell).astype(np.float32)


def _onion(mask: Bytes, random: np.random.Generator) -> list[tuple[int, int]]:
    """The hole's pixels layer by layer, in each layer those with most known neighbours first."""
    left, order = mask.astype(bool), []
    while left.any():
        layer = left & binary_dilation(~left, np.ones((3, 3)))
        neighbours = convolve((~left).astype(int), np.ones((_SIDE, _SIDE), int), mode="constant")
        pixels = np.argwhere(layer)
        pixels = pixels[np.lexsort((random.random(len(pixels)), -neighbours[layer]))]
        order += [(int(top), int(left_)) for top, left_ in pixels]
        left = left & ~layer
    return order
