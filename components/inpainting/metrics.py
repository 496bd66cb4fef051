"""How well a picture was repaired. All metrics take uint8 pictures and score them on [0, 1].

One definition of SSIM, in writing: scikit-image's default (uniform 7x7 window, sample covariance,
``data_range`` 255, channels averaged, 3-pixel border left out) on the composited uint8 picture, from
Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.

MSE, L1, PSNR and SSIM are there twice: of the whole picture, which is what people see, and of the hole alone,
which a small hole does not dilute. A picture without a hole has nothing to repair and counts as perfect.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from components.inpainting.images import Bytes

PSNR_OF_PERFECT = 100.0
"""dB given to a picture without error, whose PSNR would be infinite and poison every mean."""

_WINDOW = 7
_SAMPLES = _WINDOW**2
_C1, _C2 = 0.01**2, 0.03**2
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_CHUNK = 100_000  # bytes of pictures at once: what is made of them fits a CPU's caches
_GRADIENT = 170.0  # keeps GMSD calm where there are no edges, on grey levels
_FLAT = 0.25  # squared grey levels: what rounding alone leaves in a flat area

Scores = npt.NDArray[np.float64]


def mse(repairs: Bytes, truths: Bytes) -> Scores:
    """Mean squared error of the whole picture, per picture, in [0, 1]. uint8 ``N,H,W,C``."""
    scores: Scores = _squared(repairs, truths).mean(axis=(1, 2, 3))
    return scores


def l1(repairs: Bytes, truths: Bytes) -> Scores:
    """Mean absolute error of the whole picture, per picture, in [0, 1]. uint8 ``N,H,W,C``."""
    scores: Scores = _absolute(repairs, truths).mean(axis=(1, 2, 3))
    return scores


def psnr(repairs: Bytes, truths: Bytes) -> Scores:
    """Peak signal-to-noise ratio of the whole picture, dB, per picture; ``PSNR_OF_PERFECT`` at most."""
    return _decibels(mse(repairs, truths))


def hole_mse(repairs: Bytes, truths: Bytes, masks: Bytes) -> Scores:
    """Mean squared error over hole pixels and channels, per picture, in [0, 1].

    ``repairs`` and ``truths`` are uint8 ``N,H,W,C``, ``masks`` ``N,H,W``. An empty mask scores 0.
    """
    return _mean_in_holes(_squared(repairs, truths), masks)


def hole_l1(repairs: Bytes, truths: Bytes, masks: Bytes) -> Scores:
    """Mean absolute error over hole pixels and channels, per picture, in [0, 1]; as ``hole_mse``."""
    return _mean_in_holes(_absolute(repairs, truths), masks)


def hole_psnr(repairs: Bytes, truths: Bytes, masks: Bytes) -> Scores:
    """Peak signal-to-noise ratio inside the hole, dB, per picture; an empty mask scores ``PSNR_OF_PERFECT``."""
    return _decibels(hole_mse(repairs, truths, masks))


def ssim(repairs: Bytes, truths: Bytes, device: torch.device | str = "cpu") -> Scores:
    """Structural similarity of the whole picture, per picture, in [-1, 1]. uint8 ``N,H,W,C``.

    Computed on a GPU where ``device`` is one; a CPU has a quicker way of its own.
    Raises ``ValueError`` for pictures with fewer than 7 pixels on a side, as all that looks at SSIM's windows.
    """
    if torch.device(device).type == "cpu":
        return _mean_over_map(_ssim_map(repairs, truths))
    a, b = (torch.from_numpy(x).to(device).permute(0, 3, 1, 2).double() / 255 for x in (repairs, truths))
    scores: Scores = ssim_of_planes(a, b).cpu().numpy()
    return scores


def hole_ssim(repairs: Bytes, truths: Bytes, masks: Bytes) -> Scores:
    """Structural similarity around hole pixels, per picture, in [-1, 1]; an empty mask scores 1.

    The mean of SSIM's map over the windows whose centre lies in the hole; a hole pixel less than 3 pixels from the
    border, around which no window fits, counts the nearest that does. uint8 ``N,H,W,C`` and ``N,H,W``.
    """
    return _ssim_in_holes(_ssim_map(repairs, truths), masks)


def _squared(repairs: Bytes, truths: Bytes) -> Scores:
    return ((repairs.astype(np.float64) - truths) / 255) ** 2


def _absolute(repairs: Bytes, truths: Bytes) -> Scores:
    return np.abs(repairs.astype(np.float64) - truths) / 255


def _decibels(squared: Scores) -> Scores:
    scores: Scores = -10 * np.log10(np.maximum(squared, 10 ** (-PSNR_OF_PERFECT / 10)))
    return scores


def _mean_in_holes(errors: Scores, masks: Bytes) -> Scores:
    """The mean of ``N,H,W,C`` over each picture's hole, as ``N``; 0 where there is none."""
    holes = np.maximum(masks.sum(axis=(1, 2)), 1) * errors.shape[-1]
    scores: Scores = (errors * masks[..., None]).sum(axis=(1, 2, 3)) / holes
    return scores


def _ssim_map(repairs: Bytes, truths: Bytes) -> Scores:
    """SSIM of every 7x7 window of uint8 ``N,H,W,C``: ``N,H-6,W-6,C``. Some pictures at a time, see ``_CHUNK``."""
    number, height, width, channels = repairs.shape
    _require_window(height, width)
    count = max(1, _CHUNK // (height * width * channels))
    border = _WINDOW // 2
    similarity = np.empty((number, height - 2 * border, width - 2 * border, channels))
    for start in range(0, number, count):
        part = slice(start, start + count)
        sums = _byte_window_sums(repairs[part], truths[part])
        similarity[part] = _similarity_of_sums(*(one[:, border:-border, border:-border] for one in sums))
    return similarity


def _require_window(height: int, width: int) -> None:
    if min(height, width) < _WINDOW:
        raise ValueError(
            f"pictures of {width}x{height} pixels are too small for SSIM, which looks at {_WINDOW}x{_WINDOW} at once; "
            "score larger ones"
        )


def _byte_window_sums(a: Bytes, b: Bytes) -> list[npt.NDArray[np.int32]]:
    """Over the 7x7 window around every pixel: exact sums of a, of b, of their squares together, of their product.

    As ``ssim_of_planes`` does, but in integers, and by OpenCV's running sums, whose work does not grow with the window.
    The pictures lie below each other, so that windows at their borders hold pixels of two: those are to be left out.
    """
    import cv2

    squares = np.multiply(a, a, dtype=np.uint16).astype(np.int32)
    squares += np.multiply(b, b, dtype=np.uint16)
    one_below_another = (-1, *a.shape[2:])
    window, border = (_WINDOW, _WINDOW), cv2.BORDER_CONSTANT
    pictures = (x.reshape(one_below_another) for x in (a, b, squares, np.multiply(a, b, dtype=np.uint16)))
    sums = (cv2.boxFilter(x, cv2.CV_32S, window, normalize=False, borderType=border) for x in pictures)
    return [np.asarray(one, np.int32).reshape(a.shape) for one in sums]


def _similarity_of_sums(
    a: npt.NDArray[np.int32], b: npt.NDArray[np.int32], squares: npt.NDArray[np.int32], product: npt.NDArray[np.int32]
) -> Scores:
    """``_similarity``, both sides of its fraction multiplied until all in it but the constants are integers."""
    steady = _C1 * 255**2 * _SAMPLES**2, _C2 * 255**2 * _SAMPLES * (_SAMPLES - 1)
    means, energy = a * b, a * a + b * b
    covariance, variances = _SAMPLES * product - means, _SAMPLES * squares - energy
    similarity: Scores = (2 * means + steady[0]) * (2 * covariance + steady[1])
    similarity /= (energy + steady[0]) * (variances + steady[1])
    return similarity


def _mean_over_map(similarity: Scores) -> Scores:
    scores: Scores = similarity.mean(axis=(1, 2, 3))
    return scores


def _ssim_in_holes(similarity: Scores, masks: Bytes) -> Scores:
    border = (_WINDOW // 2, _WINDOW // 2)
    return 1 - _mean_in_holes(1 - np.pad(similarity, ((0, 0), border, border, (0, 0)), mode="edge"), masks)


def ssim_of_planes(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of float ``N,C,H,W`` in [0, 1], per picture ``N``; equals scikit-image in float64."""
    _require_window(*a.shape[2:])
    return _similarity([sums / _SAMPLES for sums in _window_sums(a, b)]).mean(dim=(1, 2, 3))


def _similarity(means: Sequence[Tensor]) -> Tensor:
    """SSIM from the means over windows of two pictures in [0, 1], of their squares and of their product."""
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = means
    unbiased = _SAMPLES / (_SAMPLES - 1)
    squared_a, squared_b, product = mean_a * mean_a, mean_b * mean_b, mean_a * mean_b
    covariance = unbiased * (mean_ab - product)
    variances = unbiased * (mean_aa - squared_a + mean_bb - squared_b)
    luminance_and_structure = (2 * product + _C1) * (2 * covariance + _C2)
    return luminance_and_structure / ((squared_a + squared_b + _C1) * (variances + _C2))


def _window_sums(a: Tensor, b: Tensor) -> list[Tensor]:
    """Over every 7x7 window of ``N,C,H,W``: sums of a, b, their squares and their product, ``N,C,H-6,W-6`` each.

    Four sums of shifted planes per axis, where pooling takes 49 steps a pixel.
    """
    sums = []
    for planes in (a, b, a * a, b * b, a * b):
        for axis in (2, 3):
            length = planes.shape[axis]
            two = planes.narrow(axis, 0, length - 1) + planes.narrow(axis, 1, length - 1)
            four = two.narrow(axis, 0, length - 3) + two.narrow(axis, 2, length - 3)
            six = four.narrow(axis, 0, length - 6) + two.narrow(axis, 4, length - 6)
            planes = six + planes.narrow(axis, 6, length - 6)
        sums.append(planes)
    return sums


def gmsd(repairs: Bytes, truths: Bytes) -> Scores:
    """A perceptual proxy that needs no learned weights: how unevenly edges were kept, per picture; 0 is perfect.

    Gradient magnitude similarity deviation of the luminance (Xue et al., "Gradient Magnitude Similarity Deviation:
    A Highly Efficient Perceptual Image Quality Index", 2014, with the paper's halving, Prewitt filter and constant),
    which follows human judgement of degraded pictures closely, though not as closely as learned metrics (LPIPS) do.
    uint8 ``N,H,W,3``.
    """
    kernel = torch.tensor([[1.0, 0.0, -1.0]] * 3, dtype=torch.float64) / 3
    kernels = torch.stack([kernel, kernel.T])[:, None]

    def edges(pictures: Bytes) -> Tensor:
        grey = torch.from_numpy(pictures.astype(np.float64) @ _LUMINANCE)[:, None]
        return F.conv2d(F.avg_pool2d(grey, 2), kernels, padding=1).square().sum(dim=1).sqrt()

    a, b = edges(repairs), edges(truths)
    similarity = (2 * a * b + _GRADIENT) / (a * a + b * b + _GRADIENT)
    scores: Scores = similarity.flatten(1).std(dim=1, correction=0).numpy()
    return scores


def mask_scores(found: Bytes, masks: Bytes) -> dict[str, Scores]:
    """How well damage was found: ``mask_f1`` (Dice) and ``mask_iou`` (Jaccard) per picture, in [0, 1].

    Both are ``N,H,W`` of 0 and 1. Where there is no damage, and none was found, both are 1.
    """
    shared, sizes = (found & masks).sum(axis=(1, 2)), found.sum(axis=(1, 2)) + masks.sum(axis=(1, 2))
    perfect = sizes == 0
    return {
        "mask_f1": np.where(perfect, 1.0, 2 * shared / np.maximum(sizes, 1)),
        "mask_iou": np.where(perfect, 1.0, shared / np.maximum(sizes - shared, 1)),
    }


def sharpness(repairs: Bytes, truths: Bytes, masks: Bytes) -> Scores:
    """How much detail a repair has beside the truth, per picture: 1 is as sharp, below 1 blurred, above 1 rough.

    The root mean square of the differences between neighbouring pixels of which one or both lie in the hole,
    divided by that of the truth. A repair that averages over what could have been there has less
    (Blau & Michaeli, "The Perception-Distortion Tradeoff", 2018, on why that lowers the error all the same).
    uint8 ``N,H,W,C`` and ``N,H,W``. An empty mask, and a hole in a flat area, score 1.
    """
    energies = [_roughness(pictures, masks) for pictures in (repairs, truths)]
    scores: Scores = np.sqrt((energies[0] + _FLAT) / (energies[1] + _FLAT))
    return scores


def _roughness(pictures: Bytes, masks: Bytes) -> Scores:
    """Mean squared difference of neighbours, in grey levels, per picture; pairs outside the hole do not count."""
    values, holes = pictures.astype(np.float64), masks.astype(bool)
    squared, pairs = np.zeros(len(pictures)), np.zeros(len(pictures))
    for axis in (1, 2):
        length = holes.shape[axis]
        near, far = (holes.take(range(*ends), axis) for ends in ((0, length - 1), (1, length)))
        touched = near | far
        squared += (np.diff(values, axis=axis) ** 2 * touched[..., None]).mean(axis=3).sum(axis=(1, 2))
        pairs += touched.sum(axis=(1, 2))
    roughness: Scores = squared / np.maximum(pairs, 1)
    return roughness


def score_each(repairs: Bytes, truths: Bytes, masks: Bytes) -> dict[str, Scores]:
    """All metrics per picture, by the names of ``Score``'s fields."""
    similarity = _ssim_map(repairs, truths)
    return {
        "ssim": _mean_over_map(similarity),
        "psnr": psnr(repairs, truths),
        "mse": mse(repairs, truths),
        "l1": l1(repairs, truths),
        "hole_ssim": _ssim_in_holes(similarity, masks),
        "hole_psnr": hole_psnr(repairs, truths, masks),
        "hole_mse": hole_mse(repairs, truths, masks),
        "hole_l1": hole_l1(repairs, truths, masks),
        "sharpness": sharpness(repairs, truths, masks),
        "gmsd": gmsd(repairs, truths),
    }
