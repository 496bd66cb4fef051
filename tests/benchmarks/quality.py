"""How well models repair, beside scikit-image's biharmonic fill, on the same test pictures and holes.

    python -m tests.benchmarks.quality DATASET NAME=MODEL [NAME=MODEL ...] [--count 300]

DATASET is a folder that ``kintsugi prepare`` wrote, MODEL a model folder of the train step (in a run's folder,
``steps/train/model``), for instance of the default generator and of the paper's, trained on DATASET's training
pictures. Holes are drawn here, by picture, from a seed that no training uses. PSNR is the mean over pictures
of the composited uint8 picture, SSIM scikit-image's, hole MSE on pixels in [-1, 1], as the paper has it;
sharpness is the repair's detail beside the truth's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.hardware import choose_device
from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Bytes
from components.inpainting.inpainter import Inpainter, open_classical, wrap_generator
from components.inpainting.masks import FAMILIES, MaskMixture, coverage
from components.inpainting.metrics import score_each, sharpness
from components.inpainting.networks import load_generator

_SEED = 20_000
_TO_SIGNED = 4  # squared errors on [-1, 1] are four times those on [0, 1]
_THIN = (0.005, 0.03)  # shares of the picture that thin scratches cover
_FAMILIES = ("text", "scratches", "cracks", "strokes_thin", "strokes", "blocks", "boxes")


@dataclass(frozen=True)
class Case:
    """One row of the table: holes, uint8 ``N,H,W``, one per picture."""

    label: str
    masks: Bytes


def main() -> None:
    """Print the table, best of each row unmarked: the differences say it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--count", type=int, default=300, help="test pictures, at most")
    options = parser.parse_args()
    truths = np.asarray(PreparedDataset.open(options.dataset).split("test").images)[: options.count]
    device = choose_device().torch
    named = (assignment.partition("=") for assignment in options.models)
    methods = {"biharmonic": open_classical("biharmonic")} | {
        name: wrap_generator(load_generator(Path(folder)).to(device)) for name, _, folder in named
    }
    print(f"{len(truths)} pictures of {truths.shape[1]} pixels; differences are to biharmonic\n")
    print(f"{'holes':<28}{'method':<14}{'PSNR':>8}{'':>8}{'SSIM':>8}{'':>8}{'hole MSE':>10}{'':>8}{'sharpness':>11}")
    for case in _cases(truths.shape[1], len(truths)):
        _print(case, truths, methods)


def _cases(size: int, count: int) -> Iterator[Case]:
    """The paper's holes, and each family by coverage bin."""
    half, quarter = size // 2, size // 4
    for family, side in (("center_box", half), ("box", half), ("box", quarter)):
        mixture = MaskMixture({family: 1}, size, side)
        where = "centre" if family == "center_box" else "random"
        yield Case(f"{side}x{side} {where}", mixture.draw_fixed(family, _keys(count)))
    thin = [
        FAMILIES["scratches"].draw(size, rng.uniform(*_THIN), rng) for rng in map(np.random.default_rng, _keys(count))
    ]
    yield Case("thin scratches", np.stack(thin))
    for family in _FAMILIES:
        masks = MaskMixture({family: 1}, size).draw_fixed(family, _keys(count))
        yield Case(family, masks)
        bins = FAMILIES[family].bins
        for low, high in bins if len(bins) > 1 else []:
            inside = (coverage(masks) >= low) & (coverage(masks) < high)
            yield Case(f"  {low:.0%} to {high:.0%}", np.where(inside[:, None, None], masks, 0).astype(np.uint8))


def _keys(count: int) -> list[list[int]]:
    return [[_SEED, number] for number in range(count)]


def _print(case: Case, truths: Bytes, methods: dict[str, Inpainter]) -> None:
    rows = np.flatnonzero(case.masks.any(axis=(1, 2)))
    if not len(rows):
        return
    masks, wanted = case.masks[rows], truths[rows]
    yardstick = None
    for name, repair in methods.items():
        repairs = np.stack(
            [repair(truth * (1 - mask[..., None]), mask) for truth, mask in zip(wanted, masks, strict=True)]
        )
        found = {metric: float(values.mean()) for metric, values in score_each(repairs, wanted, masks).items()}
        found["sharpness"] = float(sharpness(repairs, wanted, masks).mean())
        yardstick = yardstick or found
        label = f"{case.label} ({len(rows)})" if found is yardstick else ""
        ratio = found["hole_mse"] / yardstick["hole_mse"]
        print(
            f"{label:<28}{name:<14}{found['psnr']:>8.2f}{found['psnr'] - yardstick['psnr']:>+8.2f}"
            f"{found['ssim']:>8.4f}{found['ssim'] - yardstick['ssim']:>+8.4f}"
            f"{_TO_SIGNED * found['hole_mse']:>10.5f}{ratio:>7.3f}x{found['sharpness']:>11.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
