"""How far two computations of one repair, by torch and by an exported engine, may lie apart; beside ``ROUNDING``."""

from __future__ import annotations

MIN_SSIM = 0.9999
"""Of two repairs of one picture under one mask."""
MIN_AGREEMENT = 0.999
"""Share of a picture's pixels of which two computations of a blind model must say the same: damaged, or not."""
MIN_BLIND_SSIM = 0.999
"""Of two repairs of one picture without a mask, where the found holes may differ by single pixels."""
