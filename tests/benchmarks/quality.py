"""How well models repair, beside scikit-image's biharmonic fill, on the same test pictures and holes.

    python -m tests.benchmarks.quality DATASET NAME=MODEL [NAME=MODEL ...] [--count 300] [--picture FILE.png]

DATASET is a folder that ``kintsugi prepare`` wrote, MODEL a model folder of the train step (in a run's folder,
``steps/train/model``), for instance of the default generator and of the paper's, trained on DATASET's training
pictures. Holes are drawn here, by picture, from a seed that no training uses. PSNR is the mean over pictures
of the composited uint8 picture, SSIM scikit-image's, hole MSE on pixels in [-1, 1], as the paper has it. Sharpness
is the repair's detail beside the truth's, diversity how much that varies from picture to picture beside the truths
(1 is as much), texture the distance between the textures of repairs and truths (0 is alike): they show what tells
a model trained for realism from one trained for fidelity. ``--picture FILE.png`` shows the first repairs. A blind
model is not told where the holes are: it gets the pictures with the damage painted in, its whole output is scored,
nothing pasted, and the damage it found as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.evaluate.repairing import judged
from components.hardware import choose_device
from components.inpainting.damage import render_damage
from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Bytes, encode_png, grid
from components.inpainting.inpainter import Inpainter, open_classical, wrap_finder
from components.inpainting.masks import FAMILIES, MaskMixture, coverage
from components.inpainting.metrics import mask_scores, score_each
from components.inpainting.networks import load_generator
from components.inpainting.networks.blind_unet import BlindUNet
from components.inpainting.set_metrics import diversity, texture_distance

_SEED = 20_000
_TO_SIGNED = 4  # squared errors on [-1, 1] are four times those on [0, 1]
_THIN = (0.005, 0.03)  # shares of the picture that thin scratches cover
_SHOWN, _SHOWN_SIDE = 8, 96  # pictures, and pixels that small ones are enlarged to
_FAMILIES = ("text", "scratches", "cracks", "strokes_thin", "strokes", "blocks", "boxes")


@dataclass(frozen=True)
class Case:
    """One row of the table: holes of a family, uint8 ``N,H,W``, one per picture."""

    label: str
    family: str
    masks: Bytes


@dataclass(frozen=True)
class Method:
    """What is scored: how it repairs, and how a blind one finds the damage, uint8 ``H,W,3`` to ``H,W``."""

    repair: Inpainter
    find: Callable[[Bytes], Bytes] | None = None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--count", type=int, default=300, help="test pictures, at most")
    parser.add_argument("--picture", type=Path, help="PNG of the first case's first pictures")
    options = parser.parse_args()
    truths = np.asarray(PreparedDataset.open(options.dataset).split("test").images)[: options.count]
    methods = {"biharmonic": Method(open_classical("biharmonic"))}
    for name, _, folder in (assignment.partition("=") for assignment in options.models):
        methods[name] = _open(Path(folder))
    print(f"{len(truths)} pictures of {truths.shape[1]} pixels; differences are to biharmonic\n")
    print(
        f"{'holes':<28}{'method':<14}{'PSNR':>8}{'':>8}{'SSIM':>8}{'':>8}{'hole MSE':>10}{'':>8}{'GMSD':>8}"
        f"{'sharpness':>11}{'diversity':>11}{'texture':>9}{'mask F1':>9}{'IoU':>7}"
    )
    cases = list(_cases(truths.shape[1], len(truths)))
    if options.picture:
        _draw(options.picture, cases[0], truths[:_SHOWN], methods)
    for case in cases:
        _print(case, truths, methods)


def _open(folder: Path) -> Method:
    generator = load_generator(folder).to(choose_device().torch)
    if not isinstance(generator, BlindUNet):
        return Method(judged(generator))
    return Method(judged(generator), wrap_finder(generator))


def _cases(size: int, count: int) -> Iterator[Case]:
    """The paper's holes, and each family by coverage bin."""
    half, quarter = size // 2, size // 4
    for family, side in (("center_box", half), ("box", half), ("box", quarter)):
        mixture = MaskMixture({family: 1}, size, side)
        where = "centre" if family == "center_box" else "random"
        yield Case(f"{side}x{side} {where}", family, mixture.draw_fixed(family, _keys(count)))
    generators = [np.random.default_rng(key) for key in _keys(count)]
    thin = [FAMILIES["scratches"].draw(size, rng.uniform(*_THIN), rng) for rng in generators]
    yield Case("thin scratches", "scratches", np.stack(thin))
    for family in _FAMILIES:
        masks = MaskMixture({family: 1}, size).draw_fixed(family, _keys(count))
        yield Case(family, family, masks)
        bins = FAMILIES[family].bins
        for low, high in bins if len(bins) > 1 else []:
            inside = (coverage(masks) >= low) & (coverage(masks) < high)
            yield Case(f"  {low:.0%} to {high:.0%}", family, (masks * inside[:, None, None]).astype(np.uint8))


def _keys(count: int) -> list[list[int]]:
    return [[_SEED, number] for number in range(count)]


def _print(case: Case, truths: Bytes, methods: dict[str, Method]) -> None:
    rows = np.flatnonzero(case.masks.any(axis=(1, 2)))
    if not len(rows):
        return
    masks, wanted = case.masks[rows], truths[rows]
    damaged = np.stack([_damage(case, truths, int(row)) for row in rows])
    yardstick: dict[str, float] = {}
    for name, method in methods.items():
        scores = _score(method, damaged, wanted, masks)
        yardstick = yardstick or scores
        label = "" if scores is not yardstick else f"{case.label} ({len(rows)})"
        ratio = scores["hole_mse"] / yardstick["hole_mse"]
        found = f"{scores['mask_f1']:>9.3f}{scores['mask_iou']:>7.3f}" if method.find else ""
        print(
            f"{label:<28}{name:<14}{scores['psnr']:>8.2f}{scores['psnr'] - yardstick['psnr']:>+8.2f}"
            f"{scores['ssim']:>8.4f}{scores['ssim'] - yardstick['ssim']:>+8.4f}"
            f"{_TO_SIGNED * scores['hole_mse']:>10.5f}{ratio:>7.3f}x{scores['gmsd']:>8.4f}"
            f"{scores['sharpness']:>11.3f}{scores['diversity']:>11.3f}{scores['texture']:>9.3f}{found}",
            flush=True,
        )


def _draw(path: Path, case: Case, truths: Bytes, methods: dict[str, Method]) -> None:
    """Save a row per picture: damaged, as it was, and every method's repair."""
    rows = []
    for row, truth in enumerate(truths):
        damaged, mask = _damage(case, truths, row), case.masks[row]
        rows.append([damaged, truth, *(method.repair(damaged, mask) for method in methods.values())])
    path.write_bytes(
        encode_png(grid(rows, ["damaged", "truth", *methods], scale=max(1, _SHOWN_SIDE // len(truths[0]))))
    )


def _damage(case: Case, truths: Bytes, row: int) -> Bytes:
    rng = np.random.default_rng([_SEED, row, 1])
    return render_damage(truths[row], case.masks[row], case.family, rng, truths[row - 1])


def _score(method: Method, damaged: Bytes, truths: Bytes, masks: Bytes) -> dict[str, float]:
    """Mean scores over pictures."""
    repairs = np.stack([method.repair(picture, mask) for picture, mask in zip(damaged, masks, strict=True)])
    each = score_each(repairs, truths, masks)
    if method.find:
        each |= mask_scores(np.stack([method.find(picture) for picture in damaged]), masks)
    scores = {metric: float(values.mean()) for metric, values in each.items()}
    together = {"diversity": diversity, "texture": texture_distance}
    return scores | {name: measure(repairs, truths, masks) for name, measure in together.items()}


if __name__ == "__main__":
    main()
