"""Repair without learning, behind one call: the yardsticks that every model must beat."""

from __future__ import annotations

from components.inpainting.classical.exemplar import exemplar
from components.inpainting.classical.pde import biharmonic, harmonic, mean_fill, navier_stokes, telea
from components.inpainting.classical.texture import texture_synthesis
from components.inpainting.images import Bytes

METHODS = {
    "mean": mean_fill,
    "telea": telea,
    "navier_stokes": navier_stokes,
    "harmonic": harmonic,
    "biharmonic": biharmonic,
    "texture_synthesis": texture_synthesis,
    "exemplar": exemplar,
}
"""Each takes uint8 ``H,W,3`` and a mask ``H,W``, 1 where the hole is, and returns the repair, uint8 ``H,W,3``."""

SLOW = ("texture_synthesis", "exemplar")
"""Those that search the whole picture for every pixel or patch: tenths of seconds for a picture of 64 pixels."""


def repair(method: str, image: Bytes, mask: Bytes) -> Bytes:
    """Repair uint8 ``H,W,3`` where ``mask`` (``H,W``) is 1, by a method of ``METHODS``; known pixels stay as they are.

    A picture without any known pixel comes back grey.
    """
    hole = mask.astype(bool)
    if not hole.any():
        return image.copy()
    if hole.all():
        return image * 0 + 128
    return METHODS[method](image, mask)
