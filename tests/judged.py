"""An evaluation in short, complete enough for the gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from components.inpainting.scores import (
    BIHARMONIC,
    CANDIDATE,
    CHAMPION,
    DAMAGED,
    Beside,
    Evaluation,
    Exported,
    Interval,
    MethodScores,
    Score,
    Slice,
)

Pair = tuple[float, float]  # SSIM, hole MSE
RIVALS = {"mean": (0.7, 0.05), "telea": (0.85, 0.05), "navier_stokes": (0.86, 0.05)}


def score(ssim: float, hole_mse: float, mask_f1: float = math.nan) -> Score:
    return Score(ssim=ssim, psnr=30, hole_mse=hole_mse, mask_f1=mask_f1)


@dataclass(frozen=True)
class Case:
    """An evaluation in short; ``change`` takes away from the whole, or spoils it."""

    model: Pair = (0.95, 0.01)
    biharmonic: Pair = (0.94, 0.012)
    harmonic: Pair = (0.93, 0.009)
    exemplar: Pair = (0.8, 0.03)
    champion: Pair | None = None
    gain: float = 0.0005  # half the width of the 95 % interval of SSIM beside the champion's
    slice_of: int = 10
    num_slices: int = 1
    in_slice: Pair = (0.9, 0.01)  # the model's scores in the first slice
    champion_in_slice: Pair = (0.9, 0.01)
    num_photographs: int = 3
    beside: Pair | None = None  # biharmonic on the pictures that slow methods repaired too, where it differs
    steps: int = 100
    harmonic_mse: float = 0.002  # half the width of the 95 % interval of the hole MSE beside harmonic's
    blind: bool = False
    champion_blind: bool = False
    mask_f1: float = math.nan
    exported: Exported | None = None
    change: Callable[[Evaluation], Evaluation] = lambda evaluation: evaluation

    def evaluation(self) -> Evaluation:
        rivals = RIVALS | {"harmonic": self.harmonic, BIHARMONIC: self.biharmonic}
        model = score(*self.model, self.mask_f1)
        whole = {CANDIDATE: model, DAMAGED: score(0.7, 0.1)} | {name: score(*pair) for name, pair in rivals.items()}
        beside = {name: Beside(score=found, seconds=1) for name, found in whole.items()}
        for name in ("texture_synthesis", "exemplar"):
            beside[name] = Beside(score=score(*self.exemplar), seconds=1)
        if self.beside:
            beside[BIHARMONIC] = Beside(score=score(*self.beside), seconds=1)
        parts = {CANDIDATE: score(*self.in_slice)}
        if self.champion:
            whole[CHAMPION] = score(*self.champion)
            parts[CHAMPION] = score(*self.champion_in_slice)
        widths = {"harmonic": {"hole_mse": self.harmonic_mse}, CHAMPION: {"ssim": self.gain}}
        compared = [name for name in whole if name not in (CANDIDATE, DAMAGED)]
        differences = {name: self._beside(whole[CANDIDATE], whole[name], widths.get(name, {})) for name in compared}
        slices = [
            Slice(family="box", coverage=f"{number}0-{number + 1}0 %", class_name="cat", num_images=self.slice_of,
                  methods=dict.fromkeys(parts, score(0.9, 0.01)) if number else parts)
            for number in range(self.num_slices)
        ]  # fmt: skip
        return self.change(Evaluation(
            methods={name: MethodScores(families={"box": found}, overall=found) for name, found in whole.items()},
            num_images=self.slice_of * self.num_slices, num_photographs=self.num_photographs, families=["box"],
            model_digest="m", dataset_digest="d", run_id="r", model="residual_unet", steps=self.steps,
            champion="7" if self.champion else "", beside=beside, num_beside=4, differences=differences, slices=slices,
            blind=self.blind, champion_blind=self.champion_blind, exported=self.exported,
        ))  # fmt: skip

    def _beside(self, model: Score, other: Score, widths: dict[str, float]) -> dict[str, dict[str, Interval]]:
        """Paired differences, of one photograph without bounds."""
        found = {}
        for metric in ("ssim", "psnr", "hole_mse"):
            mean, half = getattr(model, metric) - getattr(other, metric), widths.get(metric, 0.0001)
            half = half if self.num_photographs > 1 else math.nan
            found[metric] = Interval(mean=mean, low=mean - half, high=mean + half)
        return {"box": found, "overall": found}
