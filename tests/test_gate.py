from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from components.config import ConfigError, GatePolicy, PipelineConfig
from components.gate import decide
from components.inpainting.scores import (
    CANDIDATE,
    CHAMPION,
    DAMAGED,
    Evaluation,
    Exported,
)
from tests.judged import Case

POLICY = GatePolicy(min_ssim=0.9, max_mse=0.02)

Change = Callable[[Evaluation], Evaluation]


def changed(*path: str | int, to: object = None) -> Change:
    """Replace what lies at a path of the evaluation as JSON has it, or take it away."""

    def change(evaluation: Evaluation) -> Evaluation:
        content = evaluation.model_dump()
        place: Any = content
        for key in path[:-1]:
            place = place[key]
        if to is None:
            del place[path[-1]]
        else:
            place[path[-1]] = to
        return Evaluation.model_validate(content)

    return change


def interval(low: float, high: float) -> dict[str, float]:
    return {"mean": (low + high) / 2, "low": low, "high": high}


def exported(milliseconds: float, megabytes: float) -> Exported:
    return Exported(megabytes=megabytes, milliseconds=milliseconds, num_pictures=4, num_threads=2, image_size=64)


CHAMPIONS = Case(champion=(0.949, 0.01))


@pytest.mark.parametrize(
    ("case", "failing"),
    [
        (Case(), set()),
        (Case(steps=0), {"trained"}),
        (Case(steps=-5), {"trained"}),
        (Case(model=(0.89, 0.01), biharmonic=(0.88, 0.02), harmonic=(0.8, 0.02)), {"ssim"}),
        (Case(model=(0.95, 0.021), biharmonic=(0.9, 0.03), harmonic=(0.8, 0.03)), {"hole_mse"}),
        (Case(model=(0.939, 0.01)), {"classical"}),
        (Case(model=(0.95, 0.013), harmonic_mse=0.005), {"classical", "classical/mse"}),
        (Case(model=(0.94, 0.011)), {"classical"}),  # as good is not better
        (Case(model=(0.941, 0.012), harmonic_mse=0.005), {"classical"}),
        (Case(model=(0.941, 0.0119), harmonic_mse=0.005), set()),
        (Case(harmonic_mse=0.0011), set()),  # harmonic has less hole MSE, which may be chance
        (Case(harmonic_mse=0.0009), {"classical/mse"}),  # and here it is not
        (Case(harmonic=(0.945, 0.009)), {"classical"}),
        (Case(exemplar=(0.951, 0.03)), {"classical/slow"}),
        (Case(exemplar=(math.nan, 0.03)), {"scored", "classical/slow"}),
        (Case(harmonic=(0.96, 0.009), beside=(0.97, 0.02)), {"classical"}),
        (Case(beside=(0.97, 0.001)), set()),
        (Case(exemplar=(0.949, 0.03)), set()),
        (CHAMPIONS, set()),
        (Case(champion=(0.949, 0.01), gain=0.001), set()),
        (Case(champion=(0.949, 0.01), gain=0.0011), {"champion"}),
        (Case(champion=(0.949, 0.0099)), {"champion"}),
        (Case(champion=(0.951, 0.01)), {"champion"}),
        (Case(champion=(0.949, 0.01), in_slice=(0.8901, 0.01)), set()),
        (Case(champion=(0.949, 0.01), in_slice=(0.8899, 0.01)), {"slices"}),
        (Case(champion=(0.949, 0.01), in_slice=(0.9, 0.0125)), set()),
        (Case(champion=(0.949, 0.01), in_slice=(0.9, 0.01251)), {"slices"}),  # equal in SSIM
        (Case(champion=(0.949, 0.01), in_slice=(0.9, 0.0), champion_in_slice=(0.9, 0.0)), set()),
        (Case(champion=(0.949, 0.01), in_slice=(0.9, 1e-9), champion_in_slice=(0.9, 0.0)), {"slices"}),
        (Case(champion=(0.949, 0.01), in_slice=(0.4, 0.5), slice_of=9, num_slices=2), set()),
        # a family as a whole, though it has few pictures
        (Case(model=(0.95, 0.01), champion=(0.961, 0.01), slice_of=1, num_slices=4), {"champion", "slices"}),
        (Case(model=(0.95, 0.01), champion=(0.949, 0.007), slice_of=1, num_slices=4), {"champion", "slices"}),
        (Case(biharmonic=(math.nan, 0.01)), {"scored", "classical"}),
        # what one photograph does not say
        (Case(num_photographs=1), set()),  # nothing is certain over one photograph
        (Case(champion=(0.9, 0.02), num_photographs=1), {"champion"}),
        (Case(blind=True, mask_f1=0.7, num_photographs=1), set()),
        # models that find the damage themselves
        (Case(blind=True, mask_f1=0.7, biharmonic=(0.99, 0.001)), set()),
        (Case(blind=True, mask_f1=0.7, champion=(0.99, 0.001)), {"kind"}),
        (Case(champion=(0.8, 0.03), champion_blind=True), {"kind"}),  # better scores, by being told more
        (Case(blind=True, mask_f1=0.7, champion=(0.949, 0.01), champion_blind=True), set()),
        (Case(blind=True, mask_f1=0.7, champion=(0.949, 0.01), gain=1, champion_blind=True), {"champion"}),
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


NOTHING = {"ssim": math.nan, "psnr": math.nan, "hole_mse": math.nan}


@pytest.mark.parametrize(
    ("case", "change", "said"),
    [
        (Case(), changed("methods", CANDIDATE), "this model was not scored"),
        (Case(), changed("methods", CANDIDATE, "families", "box"), "this model was not scored under box"),
        (
            Case(),
            changed("methods", CANDIDATE, "overall", "ssim", to=math.nan),
            "this model over all has no finite ssim",
        ),
        (Case(), changed("methods", CANDIDATE, "families", "box", "psnr", to=math.inf), "under box has no finite psnr"),
        (Case(), changed("families", to=[]), "there is no mask family"),
        (Case(), changed("families", to=["box", "text"]), "this model was not scored under text"),
        (Case(), changed("num_images", to=0), "there is no test picture"),
        (Case(), changed("num_photographs", to=0), "10 pictures cannot be of 0 photographs"),
        (Case(), changed("num_photographs", to=11), "10 pictures cannot be of 11 photographs"),
        (Case(), changed("methods", DAMAGED), "doing nothing was not scored"),
        (Case(blind=True, mask_f1=0.9), changed("methods", DAMAGED), "doing nothing was not scored"),
        (Case(), changed("beside", "exemplar"), "exemplar (Criminisi) was not scored"),
        (Case(blind=True, mask_f1=0.9), changed("beside", "exemplar"), "exemplar (Criminisi) was not scored"),
        (Case(), changed("beside", to={}), "texture synthesis (Efros-Leung) was not scored"),
        (Case(), changed("beside", CANDIDATE), "not scored on the pictures that slow methods repaired"),
        (Case(), changed("methods", "telea"), "Telea was not scored"),  # though it is in the other table
        (Case(), changed("num_beside", to=0), "slow methods repaired 0 of 10 pictures"),
        (Case(), changed("num_beside", to=11), "slow methods repaired 11 of 10 pictures"),
        (
            Case(),
            changed("methods", CANDIDATE, "families", "box", "ssim", to=0.3),
            "ssim of this model over all is not the mean of its families",
        ),
        (Case(), changed("champion", to="7"), "the champion, version 7, was not scored"),
        (CHAMPIONS, changed("champion", to=""), "which version it is was not said"),
        (CHAMPIONS, changed("methods", CHAMPION), "the champion, version 7, was not scored"),
        (CHAMPIONS, changed("methods", CHAMPION, "families", to={}), "champion was not scored under box"),
        (
            CHAMPIONS,
            changed("methods", CHAMPION, "overall", "hole_mse", to=math.nan),
            "champion over all has no finite",
        ),
        (CHAMPIONS, changed("slices", 0, "methods", CHAMPION), "champion was not scored in box, 00-10 %, cat"),
        (
            CHAMPIONS,
            changed("slices", 0, "methods", CHAMPION, to=NOTHING),
            "champion in box, 00-10 %, cat has no finite",
        ),
        (Case(), changed("slices", 0, "methods", CANDIDATE), "this model was not scored in box, 00-10 %, cat"),
        (Case(), changed("slices", 0, "methods", CANDIDATE, "ssim", to=math.nan), "cat has no finite ssim"),
        (Case(), changed("slices", to=[]), "the slices of box hold 0 of 10 pictures; there is no slice"),
        (Case(), changed("slices", 0, "num_images", to=9), "the slices of box hold 9 of 10 pictures"),
        (Case(), changed("differences", "harmonic"), "ssim beside harmonic, box, was not compared"),
        (Case(), changed("differences", "telea", "box"), "ssim beside Telea, box, was not compared"),
        (CHAMPIONS, changed("differences", CHAMPION), "ssim beside champion, box, was not compared"),
        (CHAMPIONS, changed("differences", CHAMPION, "overall"), "ssim beside champion, overall, was not compared"),
        (CHAMPIONS, changed("differences", CHAMPION, "overall", "ssim", to=interval(-0.0015, 0.0005)), "the means"),
        (CHAMPIONS, changed("differences", CHAMPION, "overall", "ssim", "low", to=math.nan), "no interval around it"),
        (CHAMPIONS, changed("differences", CHAMPION, "overall", "ssim", "high", to=math.inf), "no interval around it"),
        (CHAMPIONS, changed("differences", CHAMPION, "overall", "ssim", "low", to=0.1), "no interval around it"),
        (CHAMPIONS, changed("differences", CHAMPION, "box", "hole_mse", "high", to=-1.0), "no interval around it"),
        (Case(), changed("num_photographs", to=1), "ssim beside mean colour, box, has an interval of one photograph"),
    ],
)
@pytest.mark.parametrize("mode", ["enforce", "off"])
def test_what_is_missing_or_contradicts_the_rest_fails_with_the_gate_off_too(
    mode: str, case: Case, change: Change, said: str
) -> None:
    whole = case.evaluation()
    assert decide(whole, POLICY).admitted
    decision = decide(change(whole), GatePolicy.model_validate(POLICY.model_dump() | {"mode": mode}))
    (rule,) = (rule for rule in decision.rules if rule.name == "scored")
    assert not rule.passed and not decision.admitted
    assert said in rule.sentence and rule.sentence.endswith(".")
    assert decision.advice


def test_a_budget_needs_a_cost_that_was_measured() -> None:
    policy = GatePolicy(min_ssim=0.9, max_mse=0.02, max_latency_ms=10, max_size_mb=4)
    for found in (None, exported(0, 1), exported(-1, 1), exported(1, 0), exported(math.inf, 1)):
        decision = decide(Case(exported=found).evaluation(), policy)
        assert not decision.admitted and "was not measured" in decision.missed
    assert decide(Case(exported=exported(1, 1)).evaluation(), policy).admitted


def test_every_rule_that_is_missed_says_what_to_do() -> None:
    policy = GatePolicy(max_latency_ms=1, max_size_mb=1, min_ssim=0.99, max_mse=0, family_min_ssim="box:0.99")
    cases = (
        Case(champion=(0.97, 0.001), steps=0, exemplar=(0.96, 0.03), harmonic=(0.96, 0.005)),
        Case(blind=True, model=(0.6, 0.1), champion=(0.9, 0.1)),
    )
    decisions = [decide(case.evaluation(), policy) for case in cases]
    missed = {rule.name for decision in decisions for rule in decision.rules if not rule.passed}
    assert missed == {
        "trained", "scored", "ssim", "ssim/box", "hole_mse", "classical", "classical/slow", "classical/mse", "mask_f1",
        "blind", "kind", "latency", "size", "champion", "slices",
    }  # fmt: skip
    assert all(len(decision.advice) > 3 for decision in decisions)


def test_rules_say_how_sure_they_are_and_over_how_many_photographs() -> None:
    said = {rule.name: rule.sentence for rule in decide(CHAMPIONS.evaluation(), POLICY).rules}
    for name, low, high in (("classical", "+0.00990", "+0.01010"), ("champion", "+0.00050", "+0.00150")):
        assert f"With 95 % confidence, over 3 photographs, its SSIM is {low} to {high} beside that" in said[name]
    assert "with 95 % confidence, over 3 photographs, the model's is" in said["classical/mse"]
    one = {
        rule.name: rule.sentence for rule in decide(replace(CHAMPIONS, num_photographs=1).evaluation(), POLICY).rules
    }
    assert all("it takes more photographs" in one[name] for name in ("classical", "classical/mse", "champion"))


def test_the_worst_slice_of_either_score_is_named_and_what_was_not_heard() -> None:
    case = Case(champion=(0.949, 0.01), in_slice=(0.88, 0.011), num_slices=2)
    (said,) = (rule.sentence for rule in decide(case.evaluation(), POLICY).rules if rule.name == "slices")
    assert "SSIM does worst in box, 00-10 %, cat: -0.02000, where -0.01 is the most that is allowed" in said
    assert "hole MSE in box, 00-10 %, cat: +10.0 %, where +25 % is allowed" in said
    assert "not heard" not in said
    few = replace(case, slice_of=9).evaluation()
    (said,) = (rule.sentence for rule in decide(few, POLICY).rules if rule.name == "slices")
    assert "SSIM does worst in box: +0.00100" in said
    assert said.endswith("Slices of fewer than 10 pictures are not heard: 2 of 2.")


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
        ({"max_latency_ms": 10}, Case(), {"scored", "latency"}),
        ({"max_size_mb": 4}, Case(exported=exported(1, 4.1)), {"size"}),
        ({"max_size_mb": 4}, Case(exported=exported(1, 3.9)), set()),
        ({"max_size_mb": 4}, Case(), {"scored", "size"}),
        ({"champion_margin": 0.2}, Case(champion=(0.949, 0.01), in_slice=(0.75, 0.01)), set()),
        ({"champion_margin": 0.0}, Case(champion=(0.949, 0.01), in_slice=(0.899, 0.01)), {"slices"}),
        ({"champion_margin_mse": 0.5}, Case(champion=(0.949, 0.01), in_slice=(0.9, 0.0149)), set()),
        ({"champion_margin_mse": 0.0}, Case(champion=(0.949, 0.01), in_slice=(0.9, 0.0101)), {"slices"}),
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
        (
            "off",
            Case(model=(math.nan, 0.01)),
            False,
            "Refused: The evaluation is not whole: this model under box has no",
        ),
    ],
)
def test_modes(mode: str, case: Case, *, admitted: bool, said: str) -> None:
    decision = decide(case.evaluation(), GatePolicy.model_validate(POLICY.model_dump() | {"mode": mode}))
    assert decision.admitted == admitted
    assert decision.verdict.startswith(said)


def test_the_verdict_names_what_failed() -> None:
    verdict = decide(Case(champion=(0.95, 0.01), gain=0.1, steps=0).evaluation(), POLICY).verdict
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
