"""Fills that continue the surroundings smoothly into the hole, as solutions of partial differential equations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from components.inpainting.images import Bytes

Numbers = npt.NDArray[np.int_]

_RADIUS = 3.0  # pixels around the front that OpenCV's methods look at, as in its documentation


def mean_fill(image: Bytes, mask: Bytes) -> Bytes:
    """The mean colour of the known pixels."""
    mean = image[mask == 0].mean(axis=0)
    return _composite(image, mask, np.broadcast_to(mean, image.shape))


def telea(image: Bytes, mask: Bytes) -> Bytes:
    """Fast marching by OpenCV (Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004)."""
    import cv2

    return _composite(image, mask, cv2.inpaint(image, mask.astype(np.uint8), _RADIUS, cv2.INPAINT_TELEA))


def navier_stokes(image: Bytes, mask: Bytes) -> Bytes:
    """Isophotes continued as a fluid flows, by OpenCV (Bertalmio, Bertozzi & Sapiro, 2001)."""
    import cv2

    return _composite(image, mask, cv2.inpaint(image, mask.astype(np.uint8), _RADIUS, cv2.INPAINT_NS))


def harmonic(image: Bytes, mask: Bytes) -> Bytes:
    """The soap film over the hole: Laplace's equation with the known pixels as its boundary.

    The linear diffusion that Bertalmio et al. ("Image Inpainting", 2000) start from, in its steady state: every
    hole pixel is the mean of its four neighbours, those beyond the picture's border left out.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import spsolve

    hole = mask.astype(bool)
    number = np.where(hole, np.cumsum(hole).reshape(hole.shape) - 1, -1)
    count = int(hole.sum())
    first, second = _neighbours(np.arange(hole.size).reshape(hole.shape))
    number, values = number.ravel(), image.reshape(-1, image.shape[2]).astype(np.float64)
    inside = number[first] >= 0
    degree = np.bincount(number[first[inside]], minlength=count)
    both = inside & (number[second] >= 0)
    rows, columns = number[first[both]], number[second[both]]
    matrix = coo_matrix((-np.ones(len(rows)), (rows, columns)), (count, count)).tocsc()
    matrix.setdiag(degree)
    known = inside & (number[second] < 0)
    right = np.zeros((count, image.shape[2]))
    np.add.at(right, number[first[known]], values[second[known]])
    filled = values.reshape(image.shape)
    filled[hole] = spsolve(matrix, right).reshape(count, -1)
    return _composite(image, mask, filled)


def biharmonic(image: Bytes, mask: Bytes) -> Bytes:
    """Biharmonic fill by scikit-image's sparse solver (Damelin & Hoang, 2018)."""
    from skimage.restoration import inpaint_biharmonic

    filled = inpaint_biharmonic(image / 255.0, mask.astype(bool), channel_axis=-1)
    return _composite(image, mask, filled * 255)


def _neighbours(pixels: Numbers) -> tuple[Numbers, Numbers]:
    """Pairs of pixels that lie beside or above one another, each pair both ways round."""
    first = np.concatenate([pixels[:, :-1].ravel(), pixels[:-1].ravel()])
    second = np.concatenate([pixels[:, 1:].ravel(), pixels[1:].ravel()])
    return np.concatenate([first, second]), np.concatenate([second, first])


def _composite(image: Bytes, mask: Bytes, filled: npt.NDArray[np.generic]) -> Bytes:
    rounded = np.rint(np.clip(filled, 0, 255)).astype(np.uint8)
    return np.where(mask[..., None] > 0, rounded, image)
