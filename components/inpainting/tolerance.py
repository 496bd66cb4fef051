"""How far two computations of one repair, by torch and by an exported engine, may lie apart; beside ``ROUNDING``."""

from __future__ import annotations

from components.inpainting.images import ROUNDING

MIN_AGREEMENT = 0.999
"""Share of a picture's pixels of which two computations of a blind model must say the same: damaged, or not."""
COARSE_SSIM = 0.999
"""Of two repairs without a mask, where the found holes may differ by single pixels, and of what networks answer raw."""
_FINE_SSIM = 0.9999


def min_ssim(tolerance: int) -> float:
    """The SSIM of two repairs that may differ by ``tolerance`` grey levels of 255, at least."""
    return _FINE_SSIM if tolerance <= ROUNDING else COARSE_SSIM
