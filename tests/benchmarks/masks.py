"""Our brush strokes beside NVIDIA's irregular masks, per coverage bin: how wide, in how many pieces, at the border.

    python -m tests.benchmarks.masks [folder of irregular masks]

The set (Liu et al., 2018) is for research only and not part of this repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from components.inpainting.images import Bytes, read_mask
from components.inpainting.masks import BINS, FAMILIES, MaskMixture, coverage
from tests.conftest import SHARED

FOLDER = SHARED / "masks" / "nvidia_irregular_512"
STROKES = ("strokes_thin", "strokes", "strokes_wide")
_COUNT = 40
_SIZE = 256


def main(folder: Path = FOLDER) -> None:
    """Print one line per coverage bin and kind of mask."""
    if not folder.is_dir():
        sys.exit(f"there are no masks in {folder}; give a folder of irregular masks, white = hole")
    theirs = read_all(folder)
    print(f"{'coverage':>9}  {'masks':13} {'number':>6} {'mean':>6} {'width':>6} {'pieces':>7} {'border':>7}")
    for low, high in BINS:
        print(_line(low, high, folder.name[:13], in_bin(theirs, low, high)))
        for family in STROKES:
            if high <= FAMILIES[family].high + 1e-9:
                print(_line(low, high, family, ours(family, low, high)))
    print("width: twice the area over the perimeter, pixels of 256; pieces: connected; border: share that touch it")


def read_all(folder: Path) -> Bytes:
    """All masks of a folder, at 256 of 512 pixels."""
    return np.stack([read_mask(path)[::2, ::2] for path in sorted(folder.glob("*.png"))])


def in_bin(masks: Bytes, low: float, high: float) -> Bytes:
    """Those that cover a share in ``[low, high)``, evenly from all of them."""
    fitting = masks[(coverage(masks) >= low) & (coverage(masks) < high)]
    some: Bytes = fitting[np.linspace(0, len(fitting) - 1, min(_COUNT, len(fitting))).astype(int)]
    return some


def ours(family: str, low: float, high: float) -> Bytes:
    """Fixed masks of a family in one bin."""
    bins = FAMILIES[family].bins
    number = next(i for i, (_, end) in enumerate(bins) if abs(end - high) < 1e-9)
    return MaskMixture({family: 1}, _SIZE).draw_fixed(family, [[number + i * len(bins)] for i in range(_COUNT)])


def width(masks: Bytes) -> float:
    """Mean of twice the area over the perimeter, pixels."""
    from skimage.measure import perimeter

    return float(np.mean([2 * mask.sum() / perimeter(mask) for mask in masks]))


def pieces(masks: Bytes) -> float:
    """Mean number of connected holes."""
    from skimage.measure import label

    return float(np.mean([label(mask).max() for mask in masks]))


def _line(low: float, high: float, name: str, masks: Bytes) -> str:
    rim = [mask[[0, -1]].any() or mask[:, [0, -1]].any() for mask in masks]
    share = float(coverage(masks).mean())
    return (f"{100 * low:3.0f}-{100 * high:2.0f} %   {name:13} {len(masks):6} {100 * share:5.1f}% "
            f"{width(masks):6.1f} {pieces(masks):7.1f} {100 * np.mean(rim):6.0f}%")  # fmt: skip


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
