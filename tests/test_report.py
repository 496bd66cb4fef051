"""What the report says of an evaluation and a decision."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest

from components.config import GatePolicy
from components.gate import decide
from components.inpainting.scores import (
    BIHARMONIC,
    CANDIDATE,
    CHAMPION,
    CHARTS,
    OVERALL,
    Decision,
    Evaluation,
    Exported,
    Interval,
    Rule,
)
from components.report import evaluation_report
from tests.scored import evaluated


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def scores(folder: Path) -> Evaluation:
    return evaluated(folder, "aabb")


def test_it_says_over_how_many_photographs_and_who_may_have_seen_them(scores: Evaluation, folder: Path) -> None:
    page = html.unescape(evaluation_report(folder, scores))
    assert "4 test pictures from 2 photographs under each of 2 mask families" in page
    assert "none of them cut from a photograph that this model was trained on" in page
    assert "scored again on the same pictures and holes. No paper." in page and "may have seen" not in page
    other = scores.model_copy(update={"champion_dataset": "other"})
    assert "trained on another dataset, and may have seen some of them." in evaluation_report(folder, other)
    unknown = scores.model_copy(update={"champion_dataset": ""})
    assert "the registry does not say what it was trained on" in evaluation_report(folder, unknown)


def test_it_says_how_much_better_the_model_is_and_what_is_certain(scores: Evaluation, folder: Path) -> None:
    gains = {"ssim": (0.01, 0.005, 0.015), "psnr": (0.5, -0.1, 1.1), "hole_mse": (0.002, 0.001, 0.003)}
    made = {metric: Interval(mean=mean, low=low, high=high) for metric, (mean, low, high) in gains.items()}
    page = evaluation_report(folder, scores.model_copy(update={"differences": {BIHARMONIC: {OVERALL: made}}}))
    table = page[page.index("How much better than other methods") : page.index(next(iter(CHARTS.values())))]
    assert '<td class="pass">+0.0100 <span class="bounds">(+0.0050 to +0.0150)</span></td>' in table
    assert '<td>+0.50 <span class="bounds">(-0.10 to +1.10)</span></td>' in table
    assert '<td class="fail">+0.00200 <span class="bounds">(+0.00100 to +0.00300)</span></td>' in table  # more error


def test_one_photograph_has_differences_without_intervals(tmp_path: Path) -> None:
    page = evaluation_report(tmp_path, evaluated(tmp_path, "aaaa"))
    assert "4 test pictures from 1 photograph under" in page
    assert "of which it takes two or more" in page
    assert '<td>+0.0250 <span class="bounds"></span></td>' in page


def test_what_serving_costs_stands_beside_the_quality(scores: Evaluation, folder: Path) -> None:
    assert "What serving it costs" not in evaluation_report(folder, scores)
    cost = Exported(megabytes=4.45, milliseconds=12.6, num_pictures=16, num_threads=2, image_size=64)
    page = evaluation_report(folder, scores.model_copy(update={"exported": cost}))
    part = page[page.index("What serving it costs") : page.index("SSIM of the whole picture")]
    assert part.index("<td>0.8250 ") < part.index("<td>0.01750 ") < part.index("<td>4.5</td>") < part.index(">13</td>")
    assert "ms a picture, torch or NumPy" in page  # which is not what serving takes


@pytest.mark.parametrize(
    ("missed", "admitted", "mode", "colour"),
    [
        (False, True, "enforce", "pass"),
        (False, True, "off", "pass"),
        (True, True, "off", "unsure"),
        (True, False, "off", "fail"),
        (True, False, "enforce", "fail"),
        (True, False, "dry_run", "fail"),
        (False, False, "dry_run", "pass"),
    ],
)
def test_the_verdict_is_green_only_where_every_rule_holds(
    missed: bool, admitted: bool, mode: str, colour: str, scores: Evaluation, folder: Path
) -> None:
    rules = [Rule(name="ssim", passed=not missed, sentence="SSIM is what it is.")]
    page = evaluation_report(folder, scores, Decision(admitted=admitted, rules=rules, mode=mode))
    assert f'<p class="verdict {colour}">' in page


@pytest.mark.parametrize("lost", ["families", "methods", "slices", "differences"])
def test_the_report_of_an_evaluation_that_lacks_scores_can_be_read(lost: str, scores: Evaluation, folder: Path) -> None:
    model = scores.methods[CANDIDATE].model_copy(update={"families": {}})
    updates: dict[str, dict[str, Any]] = {
        "families": {"methods": scores.methods | {CANDIDATE: model}},
        "methods": {"methods": {}},
        "slices": {"slices": [part.model_copy(update={"methods": {}}) for part in scores.slices]},
        "differences": {"differences": {CHAMPION: {}}},
    }
    broken = scores.model_copy(update=updates[lost])
    page = html.unescape(evaluation_report(folder, broken, decide(broken, GatePolicy())))
    assert "The evaluation is not whole" in page
