"""Whether all scores of an evaluation are there, and agree with each other."""

from __future__ import annotations

import math
from collections.abc import Iterator

from components.inpainting.classical import SLOW
from components.inpainting.scores import (
    CANDIDATE,
    CHAMPION,
    CLASSICAL,
    DAMAGED,
    LABELS,
    OVERALL,
    Evaluation,
    Score,
    Slice,
)

_METRICS = ("ssim", "psnr", "hole_mse")
_ROUNDING = 1e-9  # between a mean of differences and a difference of means


def gaps(evaluation: Evaluation) -> Iterator[str]:
    """What is missing in an evaluation, is no number or contradicts the rest of it: a phrase each.

    Looks at what a decision rests on: this model, doing nothing, the champion, which classical methods there are,
    slices, and paired differences. Those of a single photograph have no interval, which is no gap.
    """
    yield from _counts(evaluation)
    wanted = (*_METRICS, "mask_f1") if evaluation.blind else _METRICS
    yield from _method(evaluation, CANDIDATE, wanted)
    yield from _method(evaluation, DAMAGED, _METRICS)
    yield from _classical(evaluation)
    yield from _champion(evaluation)
    yield from _slices(evaluation)
    yield from _differences(evaluation)


def _counts(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.families:
        yield "there is no mask family"
    if evaluation.num_images < 1:
        yield "there is no test picture"
    elif not 1 <= evaluation.num_photographs <= evaluation.num_images:
        yield f"{evaluation.num_images} pictures cannot be of {evaluation.num_photographs} photographs"


def _method(evaluation: Evaluation, method: str, metrics: tuple[str, ...]) -> Iterator[str]:
    if method not in evaluation.methods:
        yield f"{LABELS[method]} was not scored"
        return
    for family in evaluation.families:
        if family not in evaluation.methods[method].families:
            yield f"{LABELS[method]} was not scored under {family}"
        else:
            yield from _no_numbers(f"{LABELS[method]} under {family}", evaluation.score(method, family), metrics)
    whole = evaluation.score(method, OVERALL)
    yield from _no_numbers(f"{LABELS[method]} over all", whole, metrics)
    for metric in metrics:
        parts = [getattr(evaluation.score(method, family), metric) for family in evaluation.families]
        mean, found = sum(parts) / max(len(parts), 1), getattr(whole, metric)
        if math.isfinite(mean) and math.isfinite(found) and not math.isclose(mean, found, rel_tol=_ROUNDING):
            yield f"{metric} of {LABELS[method]} over all is not the mean of its families"


def _no_numbers(named: str, score: Score, metrics: tuple[str, ...]) -> Iterator[str]:
    missing = [metric for metric in metrics if metric not in score.known]
    if missing:
        yield f"{named} has no finite {', '.join(missing)}"


def _classical(evaluation: Evaluation) -> Iterator[str]:
    beside = {name: found.score for name, found in evaluation.beside.items()}
    whole = {name: found.overall for name, found in evaluation.methods.items()}
    for method in CLASSICAL:
        scores = beside if method in SLOW else whole
        if method in scores:
            yield from _no_numbers(f"{LABELS[method]} over all", scores[method], ("ssim", "hole_mse"))
        else:
            yield f"{LABELS[method]} was not scored"
    if CANDIDATE not in beside:
        yield f"{LABELS[CANDIDATE]} was not scored on the pictures that slow methods repaired"
    if not 1 <= evaluation.num_beside <= max(evaluation.num_images, 1):
        yield f"slow methods repaired {evaluation.num_beside} of {evaluation.num_images} pictures"


def _champion(evaluation: Evaluation) -> Iterator[str]:
    if CHAMPION in evaluation.methods:
        if not evaluation.champion:
            yield "a champion was scored, and which version it is was not said"
        yield from _method(evaluation, CHAMPION, _METRICS)
    elif evaluation.champion:
        yield f"the champion, version {evaluation.champion}, was not scored"


def _slices(evaluation: Evaluation) -> Iterator[str]:
    for family in evaluation.families:
        held = sum(part.num_images for part in evaluation.slices if part.family == family)
        if held != evaluation.num_images:
            yield f"the slices of {family} hold {held} of {evaluation.num_images} pictures"
    if not evaluation.slices:
        yield "there is no slice"
    for part in evaluation.slices:
        for method in (CANDIDATE, CHAMPION):
            if method in evaluation.methods:
                yield from _in_slice(part, method)


def _in_slice(part: Slice, method: str) -> Iterator[str]:
    if method in part.methods:
        yield from _no_numbers(f"{LABELS[method]} in {part.name}", part.methods[method], _METRICS)
    else:
        yield f"{LABELS[method]} was not scored in {part.name}"


def _differences(evaluation: Evaluation) -> Iterator[str]:
    """Phrases on the methods that the gate compares with, and on any other with which this model was compared."""
    rivals = [method for method in (*CLASSICAL, CHAMPION) if method in evaluation.methods]
    for method in dict.fromkeys([*rivals, *evaluation.differences]):
        for where in (*evaluation.families, OVERALL):
            for metric in _METRICS:
                said = _difference(evaluation, method, where, metric)
                if said:
                    yield f"{metric} beside {LABELS.get(method, method)}, {where}, {said}"


def _difference(evaluation: Evaluation, method: str, where: str, metric: str) -> str:
    """What is wrong with a paired difference; ``""`` for nothing, and where the scores are at fault."""
    gain = evaluation.gain(method, where, metric)
    if gain is None:
        return "was not compared"
    ours, theirs = (getattr(evaluation.score(name, where), metric) for name in (CANDIDATE, method))
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        return ""
    if not math.isclose(gain.mean, ours - theirs, rel_tol=0, abs_tol=_ROUNDING):
        return "is not the difference of the means"
    if evaluation.num_photographs == 1:
        return "has an interval of one photograph" if gain.known else ""
    return "" if gain.known and gain.low <= gain.mean <= gain.high else "has no interval around it"
