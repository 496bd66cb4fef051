from __future__ import annotations

import math

import pytest

from components.config import GateConfig
from components.gate import decide
from components.inpainting.scores import BIHARMONIC, CANDIDATE, CHAMPION, Evaluation, MethodScores, Score

POLICY = GateConfig(min_ssim=0.9, max_mse=0.02)


def scored(ssim: float, hole_mse: float) -> MethodScores:
    score = Score(ssim=ssim, psnr=30, hole_mse=hole_mse)
    return MethodScores(families={"box": score}, overall=score)


def evaluation(
    model: tuple[float, float] = (0.95, 0.01),
    classical: tuple[float, float] | None = (0.94, 0.012),
    champion: tuple[float, float] | None = None,
    steps: int = 100,
    champion_number: str | None = None,
) -> Evaluation:
    methods = {CANDIDATE: scored(*model)}
    if classical:
        methods[BIHARMONIC] = scored(*classical)
    if champion:
        methods[CHAMPION] = scored(*champion)
    number = champion_number if champion_number is not None else ("7" if champion else "")
    return Evaluation(
        methods=methods, num_images=4, families=["box"], model_digest="m", dataset_digest="d", run_id="r",
        model="residual_unet", steps=steps, champion=number,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "failing"),
    [
        (evaluation(), set()),
        (evaluation(steps=0), {"trained"}),
        (evaluation(model=(0.89, 0.01), classical=(0.88, 0.02)), {"ssim"}),
        (evaluation(model=(0.95, 0.021), classical=(0.9, 0.03)), {"hole_mse"}),
        (evaluation(model=(0.939, 0.01)), {"classical"}),
        (evaluation(model=(0.95, 0.013)), {"classical"}),
        (evaluation(model=(0.94, 0.012)), set()),
        (evaluation(classical=None), {"classical"}),
        (evaluation(champion=(0.949, 0.01)), set()),
        (evaluation(champion=(0.95, 0.01)), {"champion"}),
        (evaluation(champion=(0.949, 0.0099)), {"champion"}),
        (evaluation(champion=(0.96, 0.02)), {"champion"}),
        (evaluation(champion_number="7"), {"champion"}),
        (evaluation(model=(math.nan, 0.01)), {"ssim", "classical"}),
        (evaluation(model=(0.95, math.inf)), {"hole_mse", "classical"}),
        (evaluation(classical=(math.nan, 0.01)), {"classical"}),
        (evaluation(champion=(math.nan, 0.01)), {"champion"}),
    ],
)
def test_truth_table(scores: Evaluation, failing: set[str]) -> None:
    decision = decide(scores, POLICY)
    assert {rule.name for rule in decision.rules if not rule.passed} == failing
    assert decision.admitted == (not failing)
    assert decision.champion == scores.champion
    assert all(rule.sentence.endswith(".") for rule in decision.rules)


def test_the_verdict_names_what_failed() -> None:
    verdict = decide(evaluation(champion=(0.95, 0.01), steps=0), POLICY).verdict
    assert verdict.startswith("Refused: The model was never trained")
    assert "the champion, version 7" in verdict
    assert "SSIM is" not in verdict


def test_decisions_and_scores_survive_json_even_without_numbers() -> None:
    scores = evaluation(model=(math.nan, 0.01))
    again = Evaluation.model_validate_json(scores.model_dump_json())
    assert math.isnan(again.methods[CANDIDATE].overall.ssim)
    assert not decide(again, POLICY).admitted
