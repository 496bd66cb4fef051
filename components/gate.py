"""The gate step: whether a model may replace the champion, with one sentence per rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.config import GatePolicy, Settings
from components.description import describe
from components.inpainting.scores import (
    CANDIDATE,
    CHAMPION,
    CLASSICAL,
    DAMAGED,
    LABELS,
    Decision,
    Evaluation,
    Rule,
    Score,
)
from components.manifest import complete_folder, read_manifest, write_file
from components.progress import say, step
from components.report import evaluation_report
from components.tracking import open_run
from components.tracking.thresholds import Threshold, missed_thresholds

KIND = "decision"

_ALWAYS = ("trained", "scored")  # rules that bind even where the gate is off
_ENOUGH = 10  # pictures that a slice needs to be heard

_AFTER = {
    "enforce": "Once its Bento has repaired the golden pictures alike it is champion: 'make serve' answers with it.",
    "manual": "Look at the repairs below, and make it champion: kintsugi promote --model-name <serve_model_name>.",
    "dry_run": "Run again with gate_mode=enforce to register it.",
    "off": "Turn the gate on again (gate_mode=enforce): the next model will be compared with this one.",
}
"""What to do where every rule holds."""

_TRAIN_MORE = "Train for more steps (train_steps) or on more pictures (data_source, data_num_train)."
_REMEDIES = {
    "trained": "Train it: set train_steps.",
    "scored": "Look into per_image.parquet for the pictures without a score, and at the training's curves for its end.",
    "ssim": _TRAIN_MORE,
    "hole_mse": _TRAIN_MORE,
    "mask_f1": _TRAIN_MORE,
    "classical": _TRAIN_MORE,
    "blind": _TRAIN_MORE,
    "kind": "Register models that find the damage themselves under a name of their own (serve_model_name).",
    "latency": "Allow more (gate_max_latency_ms), or measure on a machine like the one that will serve it.",
    "size": "Allow more (gate_max_size_mb), or choose a smaller generator (train_model).",
    "champion": "Train longer than the champion was, or on more pictures; more test pictures (data_num_test) make a "
    "small gain certain.",
    "slices": "Draw more of the mask family that lost (data_masks, as in box:2,text), or raise gate_champion_margin.",
}
"""What to do where a rule does not hold, by the first part of its name."""


@step("gate")
def gate(config: GatePolicy, evaluation: Path, decision: Path, report: Path, settings: Settings) -> bool:
    """Decide on an evaluation folder; write a decision folder and the report with the verdict on top."""
    manifest = read_manifest(evaluation, "evaluation")
    scores = Evaluation.model_validate_json((evaluation / "scores.json").read_bytes())
    result = decide(scores, config)
    with complete_folder(decision, KIND) as draft:
        draft.made_from = {"evaluation": manifest.digest}
        (draft.path / "decision.json").write_text(result.model_dump_json(indent=2))
    write_file(report, evaluation_report(evaluation, scores, result))
    run = open_run(settings, scores.run_id)
    run.set_tags({"verdict": result.verdict, "admitted": str(result.admitted).lower()})
    page = scores.page_of("report.html")
    where = f"[report.html]({page})" if page else "report.html under Artifacts"
    run.describe(describe(scores, result, f"With pictures and every score: {where}."))
    run.log_page(report, "report.html")
    run.log_file(decision / "decision.json", "evaluation")
    say(result.verdict)
    return result.admitted


def decide(evaluation: Evaluation, policy: GatePolicy) -> Decision:
    """Hold scores against a policy. Pure; a score that is missing or no number fails its rule.

    With the gate off, a model is admitted that was trained and has scores, whatever they are.
    """
    rules = [*_rules(evaluation, policy)]
    binding = [rule for rule in rules if policy.mode != "off" or rule.name in _ALWAYS]
    return Decision(
        admitted=all(rule.passed for rule in binding) and policy.mode != "dry_run",
        rules=rules,
        policy=policy.model_dump(),
        champion=evaluation.champion,
        mode=policy.mode,
        advice=_advice(rules, policy),
    )


def _advice(rules: list[Rule], policy: GatePolicy) -> list[str]:
    """What to do next: a sentence for every kind of rule that does not hold, or what becomes of the model."""
    remedies = [_REMEDIES[rule.name.partition("/")[0]] for rule in rules if not rule.passed]
    return list(dict.fromkeys([*remedies, *([_AFTER[policy.mode]] if policy.mode == "off" or not remedies else [])]))


def _rules(evaluation: Evaluation, policy: GatePolicy) -> Iterator[Rule]:
    yield _trained(evaluation.steps)
    yield _scored(evaluation)
    yield from _thresholds(evaluation, policy)
    if evaluation.blind:
        yield _beats_damage(evaluation)
    else:
        yield from _beats_classical(evaluation)
    if evaluation.champion and evaluation.blind != evaluation.champion_blind:
        yield _another_kind(evaluation)
        return
    yield _beats_champion(evaluation)
    if evaluation.champion:
        yield _no_slice_worse(evaluation, policy.champion_margin)


def _trained(steps: int) -> Rule:
    said = f"was trained for {steps} steps" if steps else "was never trained (0 steps)"
    return Rule(name="trained", passed=steps > 0, sentence=f"The model {said}.")


def _scored(evaluation: Evaluation) -> Rule:
    model = evaluation.methods[CANDIDATE]
    missing = [
        f"{metric} of {where}"
        for where, score in {**model.families, "all": model.overall}.items()
        for metric in ("ssim", "psnr", "hole_mse", *(("mask_f1",) if evaluation.blind else ()))
        if metric not in score.known
    ]
    said = f"These scores are no finite numbers: {', '.join(missing)}." if missing else "Every score is a number."
    return Rule(name="scored", passed=not missing, sentence=said)


@dataclass(frozen=True)
class _Limit:
    """A threshold with the score it is for, and how to say it."""

    score: float
    threshold: Threshold
    label: str
    layout: str = "{:.4f}"


def _thresholds(evaluation: Evaluation, policy: GatePolicy) -> Iterator[Rule]:
    limits = dict(_limits(evaluation, policy))
    missed = missed_thresholds(
        {name: limit.score for name, limit in limits.items()},
        {name: limit.threshold for name, limit in limits.items()},
    )
    for name, limit in limits.items():
        if not math.isfinite(limit.score):
            yield Rule(name=name, passed=False, sentence=f"{limit.label} was not measured, or is no number.")
            continue
        wanted = f"at {'least' if limit.threshold.at_least else 'most'} {limit.threshold.limit:g}"
        outcome = f"{wanted} is {'missed' if name in missed else 'as asked'}"
        sentence = f"{limit.label} is {limit.layout.format(limit.score)}; {outcome}."
        yield Rule(name=name, passed=name not in missed, sentence=sentence)


def _limits(evaluation: Evaluation, policy: GatePolicy) -> Iterator[tuple[str, _Limit]]:
    model, nothing = evaluation.methods[CANDIDATE], Score(ssim=math.nan, psnr=math.nan, hole_mse=math.nan)
    yield "ssim", _Limit(model.overall.ssim, Threshold(policy.min_ssim, True), "SSIM")
    yield "hole_mse", _Limit(model.overall.hole_mse, Threshold(policy.max_mse, False), "Hole MSE")
    for family, limits in policy.family_limits.items():
        for metric, limit in limits.items():
            score = getattr(model.families.get(family, nothing), metric)
            label = f"{'SSIM' if metric == 'ssim' else 'Hole MSE'} of {family}"
            yield f"{metric}/{family}", _Limit(score, Threshold(limit, metric == "ssim"), label)
    if evaluation.blind:
        yield "mask_f1", _Limit(model.overall.mask_f1, Threshold(policy.min_mask_f1, True), "F1 of the damage it finds")
    exported = evaluation.exported
    if policy.max_latency_ms:
        took = exported.milliseconds if exported else math.nan
        label = "What the exported model takes for a picture, in ms,"
        yield "latency", _Limit(took, Threshold(policy.max_latency_ms, False), label, "{:.1f}")
    if policy.max_size_mb:
        size = exported.megabytes if exported else math.nan
        yield "size", _Limit(size, Threshold(policy.max_size_mb, False), "The exported model's size in MB", "{:.2f}")


def _beats_classical(evaluation: Evaluation) -> Iterator[Rule]:
    """The classical method with the highest SSIM is beaten in SSIM and MSE, and no other certainly has less MSE.

    Not every mean has to lie below the lowest of all: the luckiest of several methods is a little better by chance.
    Slow methods are compared on the pictures that they repaired.
    """
    whole = {name: scores.overall for name, scores in evaluation.methods.items()}
    few = {name: found.score for name, found in evaluation.beside.items()}
    fast = [name for name in CLASSICAL if name in whole]
    slow = [name for name in CLASSICAL if name in few and name not in whole]
    if not fast:
        yield Rule(name="classical", passed=False, sentence="The classical methods were not scored.")
    for rule, scores, rivals in (("classical", whole, fast), ("classical/slow", few, slow)):
        if rivals:
            yield _beats_best(rule, scores, rivals)
    if len(fast) > 1:
        yield _none_surely_closer(evaluation, fast)


def _beats_best(rule: str, scores: dict[str, Score], rivals: list[str]) -> Rule:
    if not all(math.isfinite(scores[name].ssim) for name in rivals):
        return Rule(name=rule, passed=False, sentence="Not all classical methods have scores.")
    best = max(rivals, key=lambda name: scores[name].ssim)
    model, other = scores[CANDIDATE], scores[best]
    passed = model.ssim > other.ssim and model.hole_mse < other.hole_mse
    slow = ", on the pictures that slow methods repaired" if rule != "classical" else ""
    said = f"{'repairs better' if passed else 'does not repair better'} than the best classical method{slow}, "
    return Rule(name=rule, passed=passed, sentence=_compared(said + LABELS[best], model, other))


def _none_surely_closer(evaluation: Evaluation, rivals: list[str]) -> Rule:
    """The paired interval of this model's hole MSE less a method's reaches down to 0, for every method."""
    name = "classical/mse"
    gaps = {rival: evaluation.differences.get(rival, {}).get("hole_mse") for rival in rivals}
    known = {rival: gap for rival, gap in gaps.items() if gap and math.isfinite(gap.low)}
    if len(known) < len(rivals):
        said = "The hole MSE was not compared with that of every classical method, picture by picture."
        return Rule(name=name, passed=False, sentence=said)
    nearest = max(known, key=lambda rival: known[rival].low)
    model, other = (evaluation.methods[one].overall.hole_mse for one in (CANDIDATE, nearest))
    gap, passed = known[nearest], known[nearest].low <= 0
    said = f"{LABELS[nearest].capitalize()} certainly leaves less hole MSE"
    if passed:
        said = f"No classical method certainly leaves less hole MSE; {LABELS[nearest]} comes nearest"
    sure = f"with 95 % confidence the model's is {gap.low:+.6f} to {gap.high:+.6f} beside it"
    return Rule(name=name, passed=passed, sentence=f"{said}: {other:.6f} against {model:.6f}; {sure}.")


def _beats_damage(evaluation: Evaluation) -> Rule:
    """A blind model, which is not told where the holes are as classical methods are, must mend more than it spoils."""
    model, other = evaluation.methods[CANDIDATE].overall, evaluation.methods[DAMAGED].overall
    passed = model.ssim > other.ssim and model.hole_mse < other.hole_mse
    said = f"leaves pictures {'better' if passed else 'no better'} than they were"
    return Rule(name="blind", passed=passed, sentence=_compared(said, model, other))


def _another_kind(evaluation: Evaluation) -> Rule:
    """What was told where the holes are, and what was not, have scores that cannot be compared."""
    told, alone = "is told where the damage is", "finds the damage itself"
    model, champion = (alone if blind else told for blind in (evaluation.blind, evaluation.champion_blind))
    said = f"This model {model}; the champion, version {evaluation.champion}, {champion}: their scores do not compare."
    return Rule(name="kind", passed=False, sentence=said)


def _beats_champion(evaluation: Evaluation) -> Rule:
    if not evaluation.champion:
        return Rule(
            name="champion", passed=True, sentence="There is no champion to beat yet: the first needs the other rules."
        )
    whom = f"the champion, version {evaluation.champion}"
    gain = evaluation.differences.get(CHAMPION, {}).get("ssim")
    if CHAMPION not in evaluation.methods or gain is None:
        return Rule(name="champion", passed=False, sentence=f"{whom.capitalize()}, was not scored.")
    model, other = evaluation.methods[CANDIDATE].overall, evaluation.methods[CHAMPION].overall
    passed = gain.low > 0 and model.hole_mse <= other.hole_mse
    said = f"{'repairs' if passed else 'does not certainly repair'} better than {whom}"
    sure = f" With 95 % confidence its SSIM is {gain.low:+.5f} to {gain.high:+.5f} beside it."
    return Rule(name="champion", passed=passed, sentence=_compared(said, model, other) + sure)


def _no_slice_worse(evaluation: Evaluation, margin: float) -> Rule:
    """No mask family, and no slice of one by coverage and class, may lose more SSIM than the margin.

    Few pictures say nothing.
    """
    losses = dict(_losses(evaluation))
    if not losses:
        said = f"No slice of the test pictures holds {_ENOUGH}, so none can speak against it; raise data_num_test."
        return Rule(name="slices", passed=True, sentence=said)
    worst = max(losses, key=lambda name: losses[name] if math.isfinite(losses[name]) else math.inf)
    passed = losses[worst] <= margin
    said = f"Beside the champion it does worst in {worst}: SSIM {-losses[worst]:+.5f}; it may lose {margin:g}"
    return Rule(name="slices", passed=passed, sentence=f"{said}{' and does not' if passed else ', and loses more'}.")


def _losses(evaluation: Evaluation) -> Iterator[tuple[str, float]]:
    """Where pictures are many enough: how much more SSIM the champion has."""
    if evaluation.num_images >= _ENOUGH and CHAMPION in evaluation.methods:
        for family in evaluation.families:
            champion, model = (evaluation.score(name, family).ssim for name in (CHAMPION, CANDIDATE))
            yield family, champion - model
    for part in evaluation.slices:
        if part.num_images >= _ENOUGH and {CHAMPION, CANDIDATE} <= set(part.methods):
            where = ", ".join(filter(None, (part.family, part.coverage, part.class_name)))
            yield where, part.methods[CHAMPION].ssim - part.methods[CANDIDATE].ssim


def _compared(said: str, model: Score, other: Score) -> str:
    return (
        f"It {said}: SSIM {model.ssim:.5f} against {other.ssim:.5f}, "
        f"hole MSE {model.hole_mse:.6f} against {other.hole_mse:.6f}."
    )
