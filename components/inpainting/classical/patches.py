"""Square patches of a picture: where they lie, and which of the known ones looks most like a given one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from components.inpainting.images import Bytes

Floats = npt.NDArray[np.float32]


class KnownPatches:
    """All patches of a picture that hold no hole pixel, or as many of them, drawn at random, as are wanted."""

    def __init__(self, image: Bytes, mask: Bytes, side: int, most: int, random: np.random.Generator) -> None:
        """``image`` is uint8 ``H,W,3``, ``mask`` ``H,W``; ``side`` is odd, and smaller where every patch has a hole."""
        windows = np.lib.stride_tricks.sliding_window_view
        self.side = side = _fitting_side(mask, side)
        whole = ~windows(mask.astype(bool), (side, side)).any(axis=(2, 3))
        corners = np.argwhere(whole)
        if len(corners) > most:
            corners = corners[np.sort(random.choice(len(corners), most, replace=False))]
        every = windows(image, (side, side), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
        self.pixels: Floats = every[tuple(corners.T)].reshape(len(corners), -1).astype(np.float32)
        self._squares = self.pixels**2

    def distances(self, patch: Floats, weights: Floats) -> Floats:
        """Weighted mean squared difference of every patch to ``patch``; both arguments are ``side,side,3``, flat."""
        compared = self._squares @ weights - 2 * (self.pixels @ (weights * patch)) + (weights * patch**2).sum()
        mean: Floats = (compared / max(weights.sum(), np.float32(1e-9))).clip(min=0)
        return mean


def _fitting_side(mask: Bytes, wanted: int) -> int:
    """The largest odd side, at most ``wanted``, of which some patch is free of holes; 1 if there is a known pixel."""
    largest = (min(mask.shape) - 1) // 2 * 2 + 1
    for side in range(min(wanted, largest), 1, -2):
        if (np.lib.stride_tricks.sliding_window_view(mask, (side, side)).max(axis=(2, 3)) == 0).any():
            return side
    return 1
