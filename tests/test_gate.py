from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from components.config import ConfigError, GatePolicy, PipelineConfig
from components.gate import decide
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

POLICY = GatePolicy(min_ssim=0.9, max_mse=0.02)
Pair = tuple[float, float]  # SSIM, hole MSE


def score(ssim: float, hole_mse: float, mask_f1: float = math.nan) -> Score:
    return Score(ssim=ssim, psnr=30, hole_mse=hole_mse, mask_f1=mask_f1)


@dataclass(frozen=True)
class Case:
    """An evaluation in short; fields that are ``None`` were not measured."""

    model: Pair = (0.95, 0.01)
    biharmonic: Pair | None = (0.94, 0.012)
    harmonic: Pair = (0.93, 0.009)
    exemplar: Pair = (0.8, 0.03)
    champion: Pair | None = None
    gain: Pair | None = (0.0005, 0.002)  # 95 % bounds of the SSIM beside the champion's
    champion_number: str | None = None
    lost: float = 0.0  # SSIM that the only slice loses beside the champion
    slice_of: int = 10
    num_images: int = 4  # under the holes of each family
    beside: Pair | None = None  # biharmonic on the pictures that slow methods repaired too, where it differs
    steps: int = 100
    harmonic_mse: Pair | None = (-0.001, 0.003)  # 95 % bounds of the hole MSE beside harmonic's
    blind: bool = False
    champion_blind: bool = False
    mask_f1: float = math.nan
    exported: Exported | None = None

    def evaluation(self) -> Evaluation:
        model = score(*self.model, self.mask_f1)
        whole = {CANDIDATE: model, DAMAGED: score(0.7, 0.1), "harmonic": score(*self.harmonic)}
        if self.biharmonic:
            whole[BIHARMONIC] = score(*self.biharmonic)
        beside = {name: Beside(score=found, seconds=1) for name, found in whole.items()} if self.biharmonic else {}
        if self.biharmonic:
            if self.beside:
                beside[BIHARMONIC] = Beside(score=score(*self.beside), seconds=1)
            beside["exemplar"] = Beside(score=score(*self.exemplar), seconds=1)
        slices: list[Slice] = []
        differences = {BIHARMONIC: {"hole_mse": interval(-0.01, -0.001)}}
        if self.harmonic_mse:
            differences["harmonic"] = {"hole_mse": interval(*self.harmonic_mse)}
        if self.champion:
            whole[CHAMPION] = score(*self.champion)
            parts = {CANDIDATE: score(0.9 - self.lost, 0.01), CHAMPION: score(0.9, 0.01)}
            slices = [Slice(family="box", coverage="0-10 %", class_name="cat", num_images=self.slice_of, methods=parts)]
            if self.gain:
                differences[CHAMPION] = {"ssim": interval(*self.gain)}
        number = self.champion_number if self.champion_number is not None else ("7" if self.champion else "")
        return Evaluation(
            methods={name: MethodScores(families={"box": found}, overall=found) for name, found in whole.items()},
            num_images=self.num_images, families=["box"], model_digest="m", dataset_digest="d", run_id="r",
            model="residual_unet", steps=self.steps, champion=number, beside=beside, num_beside=4,
            differences=differences, slices=slices, blind=self.blind, champion_blind=self.champion_blind,
            exported=self.exported,
        )  # fmt: skip


def interval(low: float, high: float) -> Interval:
    return Interval(mean=(low + high) / 2, low=low, high=high)


def exported(milliseconds: float, megabytes: float) -> Exported:
    return Exported(megabytes=megabytes, milliseconds=milliseconds, num_pictures=4, num_threads=2, image_size=64)


@pytest.mark.parametrize(
    ("case", "failing"),
    [
        (Case(), set()),
        (Case(steps=0), {"trained"}),
        (Case(model=(0.89, 0.01), biharmonic=(0.88, 0.02), harmonic=(0.8, 0.02)), {"ssim"}),
        (Case(model=(0.95, 0.021), biharmonic=(0.9, 0.03), harmonic=(0.8, 0.03)), {"hole_mse"}),
        (Case(model=(0.939, 0.01)), {"classical"}),
        (Case(model=(0.95, 0.013)), {"classical"}),
        (Case(model=(0.94, 0.011)), {"classical"}),  # as good is not better
        (Case(model=(0.941, 0.012)), {"classical"}),
        (Case(model=(0.941, 0.0119)), set()),
        (Case(harmonic_mse=(0.0, 0.003)), set()),  # harmonic has less hole MSE, which may be chance
        (Case(harmonic_mse=(0.0001, 0.003)), {"classical/mse"}),  # and here it is not
        (Case(harmonic_mse=(math.nan, math.nan)), {"classical/mse"}),
        (Case(harmonic_mse=None), {"classical/mse"}),
        (Case(harmonic=(0.945, 0.009)), {"classical"}),
        (Case(exemplar=(0.951, 0.03)), {"classical/slow"}),
        (Case(exemplar=(math.nan, 0.03)), {"classical/slow"}),
        (Case(harmonic=(0.96, 0.008), beside=(0.97, 0.02)), {"classical"}),
        (Case(beside=(0.97, 0.001)), set()),
        (Case(exemplar=(0.949, 0.03)), set()),
        (Case(biharmonic=None), {"classical"}),
        (Case(champion=(0.949, 0.01)), set()),
        (Case(champion=(0.949, 0.01), gain=(0.0, 0.002)), {"champion"}),
        (Case(champion=(0.949, 0.01), gain=(-0.001, 0.003)), {"champion"}),
        (Case(champion=(0.949, 0.01), gain=None), {"champion"}),
        (Case(champion=(0.949, 0.0099)), {"champion"}),
        (Case(champion=(0.949, 0.01), lost=0.0099), set()),
        (Case(champion=(0.949, 0.01), lost=0.0101), {"slices"}),
        (Case(champion=(0.949, 0.01), lost=math.nan), {"slices"}),
        (Case(champion=(0.949, 0.01), lost=0.5, slice_of=9), set()),
        (Case(champion=(0.961, 0.01), num_images=9), set()),
        (
            Case(champion=(0.961, 0.01), num_images=10),
            {"slices"},
        ),  # a family as a whole, though no slice of it is large
        (Case(champion=(0.959, 0.01), num_images=10), set()),
        (Case(champion_number="7"), {"champion"}),
        (Case(model=(math.nan, 0.01)), {"scored", "ssim", "classical", "classical/slow"}),
        (Case(model=(0.95, math.inf)), {"scored", "hole_mse", "classical", "classical/slow"}),
        (Case(biharmonic=(math.nan, 0.01)), {"classical"}),
        (Case(champion=(0.949, math.nan)), {"champion"}),
        (Case(champion=(0.949, 0.01), gain=(math.nan, math.nan)), {"champion"}),
        (Case(blind=True, mask_f1=0.7, biharmonic=(0.99, 0.001)), set()),
        (Case(blind=True, mask_f1=0.7, champion=(0.99, 0.001)), {"kind"}),
        (Case(champion=(0.8, 0.03), champion_blind=True), {"kind"}),  # better scores, by being told more
        (Case(blind=True, mask_f1=0.7, champion=(0.949, 0.01), champion_blind=True), set()),
        (Case(blind=True, mask_f1=0.7, champion=(0.949, 0.01), gain=(0, 1), champion_blind=True), {"champion"}),
        (Case(blind=True, mask_f1=0.69), {"mask_f1"}),
        (Case(blind=True), {"scored", "mask_f1"}),
        (Case(blind=True, mask_f1=0.9, model=(0.95, 0.1)), {"hole_mse", "blind"}),
    ],
)
def test_truth_table(case: Case, failing: set[str]) -> None:
    decision = decide(case.evaluation(), POLICY)
    assert {rule.name for rule in decision.rules if not rule.passed} == failing
    assert decision.admitted == (not failing)
    assert decision.champion == case.evaluation().champion
    assert all(rule.sentence.endswith(".") for rule in decision.rules)
    assert decision.advice


@pytest.mark.parametrize(
    ("policy", "case", "failing"),
    [
        ({"family_min_ssim": "box:0.95"}, Case(), set()),
        ({"family_min_ssim": "box:0.951"}, Case(), {"ssim/box"}),
        ({"family_min_ssim": "text:0.1"}, Case(), {"ssim/text"}),
        ({"family_max_mse": "box:0.01"}, Case(), set()),
        ({"family_max_mse": "box:0.0099"}, Case(), {"hole_mse/box"}),
        ({"max_latency_ms": 10}, Case(exported=exported(10, 5)), set()),
        ({"max_latency_ms": 10}, Case(exported=exported(10.1, 5)), {"latency"}),
        ({"max_latency_ms": 10}, Case(), {"latency"}),
        ({"max_size_mb": 4}, Case(exported=exported(1, 4.1)), {"size"}),
        ({"max_size_mb": 4}, Case(exported=exported(1, 3.9)), set()),
        ({"max_size_mb": 4}, Case(), {"size"}),
        ({"champion_margin": 0.2}, Case(champion=(0.949, 0.01), lost=0.15), set()),
        ({"champion_margin": 0.0}, Case(champion=(0.949, 0.01), lost=0.001), {"slices"}),
        ({"min_mask_f1": 0.0}, Case(blind=True, mask_f1=0.01), set()),
    ],
)
def test_what_a_policy_may_ask_for(policy: dict[str, object], case: Case, failing: set[str]) -> None:
    decision = decide(case.evaluation(), GatePolicy.model_validate(POLICY.model_dump() | policy))
    assert {rule.name for rule in decision.rules if not rule.passed} == failing


@pytest.mark.parametrize(
    ("mode", "case", "admitted", "said"),
    [
        ("enforce", Case(), True, "Admitted: every rule holds."),
        ("enforce", Case(model=(0.8, 0.01)), False, "Refused: SSIM is 0.8000"),
        ("manual", Case(), True, "Admitted: every rule holds. It waits to be promoted by hand."),
        ("manual", Case(model=(0.8, 0.01)), False, "Refused: SSIM"),
        ("dry_run", Case(), False, "Dry run, nothing is registered; every rule holds."),
        ("dry_run", Case(model=(0.8, 0.01)), False, "Dry run, nothing is registered: SSIM"),
        ("off", Case(), True, "Admitted unjudged, the gate is off."),
        ("off", Case(model=(0.8, 0.01)), True, "Admitted unjudged, the gate is off: SSIM"),
        ("off", Case(steps=0), False, "Refused: The model was never trained"),
        ("off", Case(model=(math.nan, 0.01)), False, "Refused: These scores are no finite numbers: ssim of box"),
    ],
)
def test_modes(mode: str, case: Case, *, admitted: bool, said: str) -> None:
    decision = decide(case.evaluation(), GatePolicy.model_validate(POLICY.model_dump() | {"mode": mode}))
    assert decision.admitted == admitted
    assert decision.verdict.startswith(said)


def test_the_verdict_names_what_failed() -> None:
    verdict = decide(Case(champion=(0.95, 0.01), gain=(-0.1, 0.1), steps=0).evaluation(), POLICY).verdict
    assert verdict.startswith("Refused: The model was never trained")
    assert "the champion, version 7" in verdict
    assert "SSIM is 0" not in verdict


def test_decisions_and_scores_survive_json_even_without_numbers() -> None:
    scores = Case(model=(math.nan, 0.01)).evaluation()
    again = Evaluation.model_validate_json(scores.model_dump_json())
    assert math.isnan(again.methods[CANDIDATE].overall.ssim)
    assert not decide(again, POLICY).admitted


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"gate_family_min_ssim": "bux:0.8"}, "'bux' is no mask family; did you mean 'box'?"),
        ({"gate_family_min_ssim": "box"}, "no number behind a colon"),
        ({"gate_family_max_mse": "box:0.1,box:0.2"}, "names 'box' twice"),
        ({"gate_family_max_mse": "box:2"}, "between -1 and 1"),
        ({"gate_family_min_ssim": "box:nan"}, "between -1 and 1"),
        ({"gate_family_min_ssim": "cracks:0.8"}, "which data_masks = .* lacks"),
        ({"gate_mode": "sometimes"}, "gate_mode"),
        ({"serve_model_name": "a.ledger"}, "kept for the histories"),
    ],
)
def test_policies_that_make_no_sense(parameters: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        PipelineConfig.from_flat(parameters)
