"""Repair without learning, behind one call: the yardstick that every model must beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from components.inpainting.images import Bytes


def biharmonic(image: Bytes, mask: Bytes) -> Bytes:
    """Biharmonic fill by scikit-image's sparse solver (Damelin & Hoang, 2018)."""
    from skimage.restoration import inpaint_biharmonic

    filled = inpaint_biharmonic(image / 255.0, mask.astype(bool), channel_axis=-1)
    repaired: Bytes = np.rint(np.clip(filled, 0, 1) * 255).astype(np.uint8)
    return repaired


METHODS: dict[str, Callable[[Bytes, Bytes], Bytes]] = {"biharmonic": biharmonic}


def repair(method: str, image: Bytes, mask: Bytes) -> Bytes:
    """Repair uint8 ``H,W,3`` where ``mask`` (``H,W``) is 1, by a method of ``METHODS``."""
    return METHODS[method](image, mask)
