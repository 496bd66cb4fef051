"""A model in short, in Markdown: what MLflow's pages of a run and of a registered version say of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator

from components.inpainting.scores import (
    BIHARMONIC,
    CANDIDATE,
    CHAMPION,
    DAMAGED,
    LABELS,
    OVERALL,
    Decision,
    Evaluation,
)

_METRICS: list[tuple[str, str, str, Callable[[Iterable[float]], float]]] = [
    ("SSIM", "ssim", "%.4f", max), ("hole MSE", "hole_mse", "%.5f", min)
]  # fmt: skip
_LONGEST = 5000  # characters that MLflow's database keeps of a version's description
_LONGEST_OPENING = 1500
_GAP = "&emsp;"  # MLflow's tables leave none between columns


def describe(evaluation: Evaluation, decision: Decision, origin: str) -> str:
    """The verdict with the scores, a table of where it repairs better, the rules, and the Markdown ``origin``.

    The first paragraph is plain text, since MLflow's lists show no more than that, as it is written. Of rules that are
    too many for MLflow, those that do not hold come first.
    """
    opening = f"{_escape(_shorten(decision.verdict, _LONGEST_OPENING))} {' '.join(_means(evaluation))}"
    before, after = "\n\n".join([opening, "\n".join(_table(evaluation)), ""]), f"\n\n{origin}\n"
    rules = [f"- {'✓' if rule.passed else '✗'} {_escape(rule.sentence)}" for rule in decision.rules]
    room = max(_LONGEST - len(before) - len(after), 1)
    if len("\n".join(rules)) > room:
        rules.sort(key=lambda rule: "✓" in rule)
    return before + _shorten("\n".join(rules), room) + after


def _escape(text: str) -> str:
    """A sentence, which may name a class of pictures by its folder, as Markdown that shows it as it is."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


def _shorten(text: str, longest: int) -> str:
    """A text of at most so many characters, with dots where it was cut."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _means(evaluation: Evaluation) -> Iterator[str]:
    """A sentence for each metric: this model's mean, then those of the others."""
    for label, metric, layout, _ in _METRICS:
        own, *others = (
            (LABELS[name], _text(layout, getattr(evaluation.score(name, OVERALL), metric)))
            for name in _shown(evaluation)
        )
        beside = ", ".join(f"{name} {value}" for name, value in others)
        yield f"{label[0].upper()}{label[1:]} {own[1]}{beside and f' ({beside})'}."


def _table(evaluation: Evaluation) -> Iterator[str]:
    """Per mask family and over all: what the methods score, the best in bold."""
    names = _shown(evaluation)
    heads = [f"{_GAP}{label}, {LABELS[name]}" for label, *_ in _METRICS for name in names]
    yield _row(["holes", *heads])
    yield _row(["---"] * (1 + len(heads)))
    for family in [*evaluation.families, OVERALL]:
        cells = [family]
        for _, metric, layout, best in _METRICS:
            values = [getattr(evaluation.score(name, family), metric) for name in names]
            texts = [_text(layout, value) for value in values]
            leading = _text(layout, best([value for value in values if math.isfinite(value)] or [math.nan]))
            cells += [f"**{text}**" if text == leading else text for text in texts]
        yield _row(cells)


def _shown(evaluation: Evaluation) -> list[str]:
    """This model, and what it has to beat; a blind one is judged beside pictures that nobody repaired."""
    yardstick = DAMAGED if evaluation.blind else BIHARMONIC
    return [name for name in (CANDIDATE, CHAMPION, yardstick) if name in evaluation.methods]


def _text(layout: str, value: float) -> str:
    return layout % value if math.isfinite(value) else "none"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
