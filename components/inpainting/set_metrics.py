"""How the repairs of many pictures differ from the truths as a set: what scores of single pictures do not show.

A repair that is one of many plausible ones has an error, and so has a blurred one, which is the smaller. As a set
true repairs look like true pictures: as varied, and made of the same textures. Neither measure needs learned weights.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view

from components.inpainting.images import Bytes

_PATCH = 7  # pixels on each side
_PATCHES = 16_384  # compared at each scale, at most
_PROJECTIONS = 256
_SCALES = 2

Floats = npt.NDArray[np.float32]


def diversity(repairs: Bytes, truths: Bytes, masks: Bytes) -> float:
    """How much the detail of repairs varies from picture to picture beside that of the truths: 1 is as much.

    The standard deviation over pictures, at each place, of the differences between neighbouring hole pixels. A
    generator that draws the same texture into every hole is sharp, but scores low. uint8 ``N,H,W,C`` and
    ``N,H,W``; places that lie in fewer than two holes do not count.
    """
    ours, wanted = (_spread(pictures, masks) for pictures in (repairs, truths))
    return float(np.sqrt(ours / wanted)) if wanted else 1.0


def _spread(pictures: Bytes, masks: Bytes) -> float:
    """Squared deviations from the mean over pictures, summed over places."""
    total = 0.0
    for axis in (1, 2):
        length = masks.shape[axis]
        near, far = (masks.take(range(*ends), axis) for ends in ((0, length - 1), (1, length)))
        inside = (near & far)[..., None].astype(np.float64)
        slopes = np.diff(pictures.astype(np.float64), axis=axis) * inside
        mean = slopes.sum(axis=0) / np.maximum(inside.sum(axis=0), 1)
        total += float(((slopes - mean * inside) ** 2).sum())
    return total


def texture_distance(repairs: Bytes, truths: Bytes, masks: Bytes) -> float:
    """How far the textures of repairs are from those of the truths: 0 is alike, blur and noise are both far.

    The sliced Wasserstein distance between small patches of two scales of a Laplacian pyramid, after Karras et
    al., "Progressive Growing of GANs for Improved Quality, Stability, and Variation", 2018. Other than there,
    patches are those around hole pixels, and both sets are divided by the truths' standard deviation instead of
    each by its own, which would hide a blur. uint8 ``N,H,W,3`` and ``N,H,W``; 0 where no hole is.
    """
    random = np.random.default_rng(0)
    planes = [torch.from_numpy(x.astype(np.float32).transpose(0, 3, 1, 2)) / 255 for x in (repairs, truths)]
    holes = torch.from_numpy(masks[:, None].astype(np.float32))
    distances = []
    for _ in range(_SCALES):
        halved = [F.avg_pool2d(plane, 2) for plane in planes]
        doubled = [F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False) for half in halved]
        details = [(plane - smooth).numpy() for plane, smooth in zip(planes, doubled, strict=True)]
        distances.append(_distance(details[0], details[1], holes.numpy()[:, 0] > 0.5, random))
        planes, holes = halved, F.avg_pool2d(holes, 2)
    return float(np.mean(distances))


def _distance(ours: Floats, wanted: Floats, holes: npt.NDArray[np.bool_], random: np.random.Generator) -> float:
    """Sliced Wasserstein distance of the patches of ``N,3,H,W`` around holes ``N,H,W``."""
    margin = _PATCH // 2
    places = np.argwhere(holes[:, margin:-margin, margin:-margin])
    if not len(places):
        return 0.0
    chosen = places[random.permutation(len(places))[:_PATCHES]]
    directions = random.standard_normal((3 * _PATCH**2, _PROJECTIONS)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    patches = [_patches(details, chosen) for details in (ours, wanted)]
    projected = [np.sort(patch @ directions, axis=0) for patch in patches]
    return float(np.abs(projected[0] - projected[1]).mean() / max(float(patches[1].std()), 1e-6))


def _patches(details: Floats, places: npt.NDArray[np.int64]) -> Floats:
    """The patches of ``N,3,H,W`` whose corners are at ``places`` (picture, row, column), as rows."""
    windows = sliding_window_view(details, (_PATCH, _PATCH), axis=(2, 3))
    number, row, column = places.T
    return np.ascontiguousarray(windows[number, :, row, column]).reshape(len(places), -1)
