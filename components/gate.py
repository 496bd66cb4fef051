"""The gate step: whether a model may replace the champion, with one sentence per rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.config import GatePolicy, Settings
from components.description import describe
from components.inpainting.completeness import gaps
from components.inpainting.scores import (
    CANDIDATE,
    CHAMPION,
    CLASSICAL,
    DAMAGED,
    LABELS,
    OVERALL,
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
_ENOUGH = 10  # pictures that a slice of a family needs to be heard
_MOST_GAPS = 5  # that a sentence names

_AFTER = {
    "enforce": "Once its Bento has repaired the golden pictures alike it is champion: 'make serve' answers with it.",
    "manual": "Look at the repairs below, and make it champion: kintsugi promote --model-name <serve_model_name>.",
    "dry_run": "Run again with gate_mode=enforce to register it.",
    "off": "Turn the gate on again (gate_mode=enforce): the next model will be compared with this one.",
}
"""What to do where every rule holds."""

_MORE_PHOTOGRAPHS = "Test on more photographs: a tenth of those of data_source are kept for that, and one is too few."
_TRAIN_MORE = "Train for more steps (train_steps) or on more pictures (data_source, data_num_train)."
_REMEDIES = {
    "trained": "Train it: set train_steps.",
    "scored": "Evaluate the model again. Where scores are no numbers, look into per_image.parquet for their pictures, "
    "and at the training's curves for its end.",
    "ssim": _TRAIN_MORE,
    "hole_mse": _TRAIN_MORE,
    "mask_f1": _TRAIN_MORE,
    "classical": _TRAIN_MORE,
    "blind": _TRAIN_MORE,
    "kind": "Register models that find the damage themselves under a name of their own (serve_model_name).",
    "latency": "Allow more (gate_max_latency_ms), or measure on a machine like the one that will serve it.",
    "size": "Allow more (gate_max_size_mb), or choose a smaller generator (train_model).",
    "champion": "Train longer than the champion was, or on more pictures; more photographs to test on, a tenth of "
    "those of data_source, make a small gain certain.",
    "slices": "Draw more of the mask family that lost (data_masks, as in box:2,text), or raise gate_champion_margin or "
    "gate_champion_margin_mse.",
}
"""What to do where a rule does not hold, by the first part of its name: every rule has an entry, see ``_rule``."""


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
    """Hold scores against a policy. Pure; a score that is missing or no number fails a rule, and nothing raises.

    With the gate off, a model is admitted that was trained and has all its scores, whatever they are.
    """
    rules = [*_rules(evaluation, policy)]
    binding = [rule for rule in rules if policy.mode != "off" or rule.name in _ALWAYS]
    return Decision(
        admitted=all(rule.passed for rule in binding) and policy.mode != "dry_run",
        rules=rules,
        policy=policy.model_dump(),
        champion=evaluation.champion,
        mode=policy.mode,
        advice=_advice(rules, evaluation, policy),
    )


def _advice(rules: list[Rule], evaluation: Evaluation, policy: GatePolicy) -> list[str]:
    """What to do next: a sentence for every kind of rule that does not hold, or what becomes of the model."""
    remedies = [_REMEDIES[rule.name.partition("/")[0]] for rule in rules if not rule.passed]
    if remedies and evaluation.num_photographs == 1:
        remedies.insert(0, _MORE_PHOTOGRAPHS)
    return list(dict.fromkeys([*remedies, *([_AFTER[policy.mode]] if policy.mode == "off" or not remedies else [])]))


def _rule(name: str, sentence: str, *, passed: bool) -> Rule:
    assert name.partition("/")[0] in _REMEDIES, name
    return Rule(name=name, passed=passed, sentence=sentence)


def _rules(evaluation: Evaluation, policy: GatePolicy) -> Iterator[Rule]:
    """Every rule that can be computed; where one cannot, ``scored`` does not hold."""
    yield _trained(evaluation.steps)
    yield _scored(evaluation, policy)
    yield from _thresholds(evaluation, policy)
    if evaluation.blind:
        yield from _beats_damage(evaluation)
    else:
        yield from _beats_classical(evaluation)
    if bool(evaluation.champion) != (CHAMPION in evaluation.methods):
        return
    if not evaluation.champion:
        yield _rule("champion", "There is no champion to beat yet: the first needs the other rules.", passed=True)
    elif evaluation.blind != evaluation.champion_blind:
        yield _another_kind(evaluation)
    else:
        yield from _beats_champion(evaluation)
        yield from _no_slice_worse(evaluation, policy)


def _trained(steps: int) -> Rule:
    said = f"was trained for {steps} steps" if steps > 0 else f"was never trained ({steps} steps)"
    return _rule("trained", f"The model {said}.", passed=steps > 0)


def _scored(evaluation: Evaluation, policy: GatePolicy) -> Rule:
    found = [*gaps(evaluation), *_costs_missing(evaluation, policy)]
    if not found:
        return _rule("scored", "All scores are there, and agree with each other.", passed=True)
    more = f"; and {len(found) - _MOST_GAPS} more" if len(found) > _MOST_GAPS else ""
    return _rule("scored", f"The evaluation is not whole: {'; '.join(found[:_MOST_GAPS])}{more}.", passed=False)


def _costs_missing(evaluation: Evaluation, policy: GatePolicy) -> Iterator[str]:
    costs = evaluation.exported
    for asked, cost, named in (
        (policy.max_latency_ms, costs.milliseconds if costs else math.nan, "time for a picture"),
        (policy.max_size_mb, costs.megabytes if costs else math.nan, "size"),
    ):
        if asked and not 0 < cost < math.inf:
            yield f"the exported model's {named} was not measured"


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
            yield _rule(name, f"{limit.label} was not measured, or is no number.", passed=False)
            continue
        wanted = f"at {'least' if limit.threshold.at_least else 'most'} {limit.threshold.limit:g}"
        outcome = f"{wanted} is {'missed' if name in missed else 'as asked'}"
        sentence = f"{limit.label} is {limit.layout.format(limit.score)}; {outcome}."
        yield _rule(name, sentence, passed=name not in missed)


def _limits(evaluation: Evaluation, policy: GatePolicy) -> Iterator[tuple[str, _Limit]]:
    model = evaluation.score(CANDIDATE, OVERALL)
    yield "ssim", _Limit(model.ssim, Threshold(policy.min_ssim, True), "SSIM")
    yield "hole_mse", _Limit(model.hole_mse, Threshold(policy.max_mse, False), "Hole MSE")
    for family, limits in policy.family_limits.items():
        for metric, limit in limits.items():
            score = getattr(evaluation.score(CANDIDATE, family), metric)
            label = f"{'SSIM' if metric == 'ssim' else 'Hole MSE'} of {family}"
            yield f"{metric}/{family}", _Limit(score, Threshold(limit, metric == "ssim"), label)
    if evaluation.blind:
        yield "mask_f1", _Limit(model.mask_f1, Threshold(policy.min_mask_f1, True), "F1 of the damage it finds")
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
    if fast and CANDIDATE in whole:
        best = _best(whole, fast)
        whom = f"the best classical method, {LABELS[best]}"
        yield _beats("classical", whom, whole, best, _certainty(evaluation, best))
        yield from _none_surely_closer(evaluation, fast)
    if slow and CANDIDATE in few:
        best = _best(few, slow)
        whom = f"the best of the slow classical methods, on the pictures that these repaired, {LABELS[best]}"
        yield _beats("classical/slow", whom, few, best)


def _best(scores: dict[str, Score], rivals: list[str]) -> str:
    """The rival with the highest SSIM; one without a score, where there is any, so that it is not passed over."""
    return max(rivals, key=lambda name: scores[name].ssim if math.isfinite(scores[name].ssim) else math.inf)


def _beats(rule: str, whom: str, scores: dict[str, Score], rival: str, certainty: str = "") -> Rule:
    model, other = scores[CANDIDATE], scores[rival]
    passed = model.ssim > other.ssim and model.hole_mse < other.hole_mse
    said = f"{'repairs better' if passed else 'does not repair better'} than {whom}"
    return _rule(rule, _compared(said, model, other) + certainty, passed=passed)


def _none_surely_closer(evaluation: Evaluation, rivals: list[str]) -> Iterator[Rule]:
    """The paired interval of this model's hole MSE less a method's reaches down to 0, for every method."""
    name = "classical/mse"
    gains = {rival: gain for rival in rivals if (gain := evaluation.gain(rival, OVERALL, "hole_mse"))}
    if evaluation.num_photographs == 1:
        said = "Whether a classical method certainly leaves less hole MSE, one photograph does not say"
        yield _rule(name, f"{said}: it takes more photographs to test on. That refuses nobody.", passed=True)
    elif len(gains) == len(rivals) and all(gain.known for gain in gains.values()):
        closer = [rival for rival in gains if gains[rival].low > 0]
        least = max(closer or gains, key=lambda rival: gains[rival].mean)
        model, other, gain = *(evaluation.score(one, OVERALL).hole_mse for one in (CANDIDATE, least)), gains[least]
        said = f"{LABELS[least].capitalize()} certainly leaves less hole MSE"
        if not closer:
            said = f"No classical method certainly leaves less hole MSE; {LABELS[least]} leaves least"
        sure = f"{_confident(evaluation)} the model's is {gain.low:+.6f} to {gain.high:+.6f} beside it"
        yield _rule(name, f"{said}: {other:.6f} against {model:.6f}; {sure}.", passed=not closer)


def _beats_damage(evaluation: Evaluation) -> Iterator[Rule]:
    """A blind model, which is not told where the holes are as classical methods are, must mend more than it spoils."""
    if {CANDIDATE, DAMAGED} <= evaluation.methods.keys():
        model, other = (evaluation.score(name, OVERALL) for name in (CANDIDATE, DAMAGED))
        passed = model.ssim > other.ssim and model.hole_mse < other.hole_mse
        said = f"leaves pictures {'better' if passed else 'no better'} than they were"
        yield _rule("blind", _compared(said, model, other), passed=passed)


def _another_kind(evaluation: Evaluation) -> Rule:
    """What was told where the holes are, and what was not, have scores that cannot be compared."""
    told, alone = "is told where the damage is", "finds the damage itself"
    model, champion = (alone if blind else told for blind in (evaluation.blind, evaluation.champion_blind))
    said = f"This model {model}; the champion, version {evaluation.champion}, {champion}: their scores do not compare."
    return _rule("kind", said, passed=False)


def _beats_champion(evaluation: Evaluation) -> Iterator[Rule]:
    gain = evaluation.gain(CHAMPION, OVERALL, "ssim")
    if gain is not None and CANDIDATE in evaluation.methods:
        model, other = (evaluation.score(name, OVERALL) for name in (CANDIDATE, CHAMPION))
        passed = gain.known and gain.low > 0 and model.hole_mse <= other.hole_mse
        whom = f"the champion, version {evaluation.champion}"
        said = f"{'repairs' if passed else 'does not certainly repair'} better than {whom}"
        yield _rule("champion", _compared(said, model, other) + _certainty(evaluation, CHAMPION), passed=passed)


def _no_slice_worse(evaluation: Evaluation, policy: GatePolicy) -> Iterator[Rule]:
    """No mask family, and no slice of one by coverage and class, may do worse than the champion beyond the margins.

    A family is heard however many pictures there are; of its slices those with enough.
    """
    heard = dict(_heard(evaluation))
    if not heard:
        return
    lost = {name: champion.ssim - model.ssim for name, (model, champion) in heard.items()}
    grown = {name: _growth(model.hole_mse, champion.hole_mse) for name, (model, champion) in heard.items()}
    unlike, further = _worst(lost), _worst(grown)
    margin, margin_mse = policy.champion_margin, policy.champion_margin_mse
    said = (
        f"Beside the champion SSIM does worst in {unlike}: {0 - lost[unlike]:+.5f}, where {-margin:+g} is "
        f"{_kept(lost[unlike], margin)}; hole MSE in {further}: {100 * grown[further]:+.1f} %, where "
        f"{100 * margin_mse:+g} % is {_kept(grown[further], margin_mse)}."
    )
    few = sum(part.num_images < _ENOUGH for part in evaluation.slices)
    if few:
        said += f" Slices of fewer than {_ENOUGH} pictures are not heard: {few} of {len(evaluation.slices)}."
    yield _rule("slices", said, passed=lost[unlike] <= margin and grown[further] <= margin_mse)


def _heard(evaluation: Evaluation) -> Iterator[tuple[str, tuple[Score, Score]]]:
    """This model's and the champion's scores where the champion may speak against it."""
    for family in evaluation.families:
        yield family, (evaluation.score(CANDIDATE, family), evaluation.score(CHAMPION, family))
    for part in evaluation.slices:
        if part.num_images >= _ENOUGH and {CHAMPION, CANDIDATE} <= part.methods.keys():
            yield part.name, (part.methods[CANDIDATE], part.methods[CHAMPION])


def _growth(ours: float, theirs: float) -> float:
    """By which share an error is larger than another."""
    if theirs == 0:
        return 0.0 if ours == 0 else math.inf
    return ours / theirs - 1


def _worst(losses: dict[str, float]) -> str:
    return max(losses, key=lambda name: losses[name] if math.isfinite(losses[name]) else math.inf)


def _kept(loss: float, margin: float) -> str:
    return "allowed" if loss <= margin else "the most that is allowed"


def _certainty(evaluation: Evaluation, rival: str) -> str:
    """How sure it is that this model is better or worse than another; nothing where they were not compared."""
    ssim, hole_mse = (evaluation.gain(rival, OVERALL, metric) for metric in ("ssim", "hole_mse"))
    if evaluation.num_photographs == 1:
        return " One photograph does not say how sure that is: it takes more photographs to test on."
    if not (ssim and hole_mse):
        return ""
    sure = f"its SSIM is {ssim.low:+.5f} to {ssim.high:+.5f} beside that, its hole MSE"
    return f" {_confident(evaluation).capitalize()} {sure} {hole_mse.low:+.6f} to {hole_mse.high:+.6f}."


def _confident(evaluation: Evaluation) -> str:
    return f"with 95 % confidence, over {evaluation.num_photographs} photographs,"


def _compared(said: str, model: Score, other: Score) -> str:
    return (
        f"It {said}: SSIM {model.ssim:.5f} against {other.ssim:.5f}, "
        f"hole MSE {model.hole_mse:.6f} against {other.hole_mse:.6f}."
    )
