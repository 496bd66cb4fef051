"""What MLflow says of a model: text for its lists, Markdown for its pages."""

from __future__ import annotations

import math

from components.description import describe
from components.inpainting.scores import (
    BIHARMONIC,
    CANDIDATE,
    CHAMPION,
    DAMAGED,
    Decision,
    Evaluation,
    MethodScores,
    Rule,
    Score,
)


def evaluation(methods: dict[str, tuple[float, float]], blind: bool = False) -> Evaluation:
    """SSIM and hole MSE by method, under boxes and over all alike."""
    scores = {name: Score(ssim=ssim, psnr=30, hole_mse=hole_mse) for name, (ssim, hole_mse) in methods.items()}
    return Evaluation(
        methods={name: MethodScores(families={"box": score}, overall=score) for name, score in scores.items()},
        num_images=8, num_photographs=4, families=["box"], model_digest="m", dataset_digest="d", run_id="r",
        model="residual_unet", steps=9, champion="3" if CHAMPION in methods else "", blind=blind,
        run_page="http://mlflow.example/#/experiments/1/runs/r?workflowType=machine_learning",
    )  # fmt: skip


RULES = [
    Rule(name="ssim", passed=True, sentence="SSIM is high."),
    Rule(name="champion", passed=False, sentence="It is worse."),
]


def test_a_description_leads_with_the_verdict_and_marks_the_best_of_every_row() -> None:
    scores = evaluation(
        {CANDIDATE: (0.91, 0.02), CHAMPION: (0.92, 0.02), BIHARMONIC: (0.9, math.nan), DAMAGED: (0.5, 0.1)}
    )
    opening, table, rules, origin = describe(scores, Decision(admitted=False, rules=RULES), "From here.").split("\n\n")
    assert opening == (
        "Refused: It is worse. SSIM 0.9100 (champion 0.9200, biharmonic 0.9000). "
        "Hole MSE 0.02000 (champion 0.02000, biharmonic none)."
    )
    heads, _, *rows = table.split("\n")
    assert heads.replace("&emsp;", "") == (
        "| holes | SSIM, this model | SSIM, champion | SSIM, biharmonic "
        "| hole MSE, this model | hole MSE, champion | hole MSE, biharmonic |"
    )
    same = "0.9100 | **0.9200** | 0.9000 | **0.02000** | **0.02000** | none |"
    assert rows == [f"| box | {same}", f"| overall | {same}"]
    assert rules == "- ✓ SSIM is high.\n- ✗ It is worse."
    assert origin == "From here.\n"


def test_what_mlflow_would_not_keep_is_cut_and_what_does_not_hold_comes_first() -> None:
    scores = evaluation({CANDIDATE: (0.91, 0.02)})
    holds, misses = (Rule(name="ssim", passed=passed, sentence="x" * 400) for passed in (True, False))
    said = describe(scores, Decision(admitted=False, rules=[holds] * 20 + [misses] * 20), "From here.")
    assert len(said) == 5000 and said.endswith("…\n\nFrom here.\n")
    assert "\n- ✗ xxx" in said and "✓" not in said
    few = describe(scores, Decision(admitted=False, rules=[holds] * 4 + [misses]), "From here.")
    assert few.index("✓") < few.index("✗") and "…" not in few


def test_names_of_classes_are_shown_as_they_are() -> None:
    scores = evaluation({CANDIDATE: (0.91, 0.02)})
    rule = Rule(name="slices", passed=False, sentence="It does worst in box, <img src=x>\n*|`cat`[a](b).")
    said = describe(scores, Decision(admitted=False, rules=[rule]), "From here.")
    assert said.count(r"box, \<img src=x\> \*\|\`cat\`\[a\](b).") == 2  # in the verdict, and as a rule


def test_a_blind_model_is_shown_beside_pictures_that_nobody_repaired() -> None:
    scores = evaluation({CANDIDATE: (0.8, 0.02), DAMAGED: (0.7, 0.1)}, blind=True)
    said = describe(scores, Decision(admitted=True, rules=RULES[:1]), "")
    assert said.startswith("Admitted: every rule holds. SSIM 0.8000 (doing nothing 0.7000). Hole MSE 0.02000")
    assert "champion" not in said


def test_a_file_of_the_run_has_a_page_where_the_run_has_one() -> None:
    scores = evaluation({CANDIDATE: (0.8, 0.02)})
    run = "http://mlflow.example/#/experiments/1/runs/r"
    assert scores.page_of("report.html") == f"{run}/artifacts/report.html?workflowType=machine_learning"
    assert scores.model_copy(update={"run_page": run}).page_of("a/b.html") == f"{run}/artifacts/a/b.html"
    assert scores.model_copy(update={"run_page": ""}).page_of("report.html") == ""
