"""Self-contained HTML pages: no network, no script, pictures inline, legible in a sandboxed iframe."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.drawing import training_curves
from components.inpainting.scores import (
    CANDIDATE,
    CHARTS,
    LABELS,
    OVERALL,
    UNSCORED,
    Decision,
    Evaluation,
    Interval,
    Slice,
)
from components.manifest import read_json_lines, read_manifest

Best = Callable[[Iterable[float]], float]
Cell = tuple[str, bool]
"""A score as text, and whether it is the best of its row or column."""

_GAINS = (("ssim", "%+.4f", 1), ("psnr", "%+.2f", 1), ("hole_mse", "%+.5f", -1))  # and the sign of what is better
_UNKNOWN = Interval(mean=math.nan, low=math.nan, high=math.nan)
_BESIDE: list[tuple[str, str, Best]] = [
    ("ssim", "%.4f", max), ("psnr", "%.2f", max), ("mse", "%.5f", min), ("l1", "%.4f", min),
    ("hole_ssim", "%.4f", max), ("hole_psnr", "%.2f", max), ("hole_mse", "%.5f", min), ("hole_l1", "%.4f", min),
    ("gmsd", "%.4f", min), ("sharpness", "%.2f", lambda values: min(values, key=lambda value: abs(value - 1))),
]  # fmt: skip


def render(template: str, **content: Any) -> str:
    """Render ``templates/<template>``; a name that is missing from ``content`` raises."""
    return _environment().get_template(template).render(**content)


def data_image(png: bytes) -> str:
    """A PNG file as a ``data:`` URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def evaluation_report(folder: Path, evaluation: Evaluation, decision: Decision | None = None) -> str:
    """The report of an evaluation folder: the verdict first where there is one, scores, pictures."""
    tables = [
        ("SSIM of the whole picture, more is better", "ssim", "%.4f", max),
        ("PSNR of the whole picture in dB, more is better", "psnr", "%.2f", max),
        ("MSE inside the hole, less is better", "hole_mse", "%.5f", min),
    ]
    return render(
        "evaluation.html",
        title=f"Does it repair better? {evaluation.model}, {evaluation.steps} steps",
        evaluation=evaluation,
        decision=decision,
        origin=_origin(evaluation),
        gains=[_gain_row(evaluation, name) for name in evaluation.in_tables if name in evaluation.differences],
        quality=_quality(evaluation),
        all_labels=[LABELS[name] for name in evaluation.ranked],
        tables=[(caption, _rows(evaluation, metric, layout, best)) for caption, metric, layout, best in tables],
        labels=[LABELS[name] for name in evaluation.in_tables],
        slices=[_slice_row(evaluation, part) for part in evaluation.slices],
        beside=[_beside_row(evaluation, name) for name in LABELS if name in evaluation.beside],
        gallery=data_image((folder / "repairs.png").read_bytes()),
        charts=[(caption, (folder / "charts" / f"{name}.svg").read_text()) for name, caption in CHARTS.items()],
    )


def training_report(model: Path) -> str:
    """The report of a model folder that a training wrote: what was trained where, curves, sample pictures."""
    manifest = read_manifest(model, "model")
    rows = read_json_lines(model / "history.jsonl")
    samples = sorted((model / "samples").glob("*.png"))
    return render(
        "training.html",
        title=f"Training of {manifest.facts['model']}, {manifest.facts['steps']} steps",
        manifest=manifest,
        last=rows[-1] if rows else {},
        curves=training_curves(rows) if rows else "",
        samples=[(int(path.stem.split("-")[-1]), data_image(path.read_bytes())) for path in _few(samples)],
    )


def _few(samples: list[Path]) -> list[Path]:
    """The first, the last and at most three between them, evenly spread."""
    count = min(len(samples), 5)
    return [samples[round(i * (len(samples) - 1) / max(count - 1, 1))] for i in range(count)]


def _origin(evaluation: Evaluation) -> str:
    """What was tested on, and whether who is compared may have been trained on it, in sentences."""
    told = (
        f"{evaluation.num_images} test pictures from {evaluation.num_photographs} "
        f"photograph{'' if evaluation.num_photographs == 1 else 's'} under each of {len(evaluation.families)} mask "
        "families, none of them cut from a photograph that this model was trained on."
    )
    if evaluation.champion:
        told += f" The champion, version {evaluation.champion}, was scored again on the same pictures and holes"
        if not evaluation.champion_dataset:
            told += "; the registry does not say what it was trained on, so it may have seen some of them"
        elif evaluation.champion_dataset != evaluation.dataset_digest:
            told += "; it was trained on another dataset, and may have seen some of them"
        told += "."
    return f"{told} {evaluation.paper}"


def _gain_row(evaluation: Evaluation, method: str) -> tuple[str, list[tuple[str, str, str]]]:
    """By how much this model is better than another over all: mean, bounds and what is certain of each metric."""
    cells = []
    for metric, layout, better in _GAINS:
        gain = evaluation.gain(method, OVERALL, metric) or _UNKNOWN
        ends = sorted((better * gain.low, better * gain.high))
        certain = "pass" if ends[0] > 0 else "fail" if ends[1] < 0 else ""
        cells.append((layout % gain.mean, _bounds(gain, layout), certain))
    return LABELS[method], cells


def _quality(evaluation: Evaluation) -> list[tuple[str, str]]:
    """This model's SSIM and hole MSE over all, and the bounds of their intervals."""
    found = evaluation.methods[CANDIDATE].intervals.get(OVERALL, {}) if CANDIDATE in evaluation.methods else {}
    scores = evaluation.score(CANDIDATE, OVERALL)
    return [
        (layout % getattr(scores, metric), _bounds(found.get(metric, _UNKNOWN), layout))
        for metric, layout in (("ssim", "%.4f"), ("hole_mse", "%.5f"))
    ]


def _bounds(interval: Interval, layout: str) -> str:
    return f"({layout % interval.low} to {layout % interval.high})" if interval.known else ""


def _rows(evaluation: Evaluation, metric: str, layout: str, best: Best) -> list[tuple[str, list[Cell]]]:
    """Per family and overall every method's score."""
    rows = []
    for family in [*evaluation.families, OVERALL]:
        values = [getattr(evaluation.score(name, family), metric) for name in evaluation.ranked]
        rows.append((family, _marked(values, layout, best)))
    return rows


def _slice_row(evaluation: Evaluation, part: Slice) -> tuple[str, int, list[Cell]]:
    """A slice's name, how many pictures it has, and every shown method's SSIM."""
    values = [part.methods.get(name, UNSCORED).ssim for name in evaluation.in_tables]
    return part.name, part.num_images, _marked(values, "%.4f", max)


def _marked(values: list[float], layout: str, best: Best) -> list[Cell]:
    known = [value for value in values if math.isfinite(value)]
    return [(layout % value, bool(known) and value == best(known)) for value in values]


def _beside_row(evaluation: Evaluation, method: str) -> tuple[str, list[Cell]]:
    """One method of the table of all methods: its name and scores."""
    found = evaluation.beside[method]
    cells = []
    for metric, layout, best in _BESIDE:
        column = {name: getattr(other.score, metric) for name, other in evaluation.beside.items()}
        marked = dict(zip(column, _marked(list(column.values()), layout, best), strict=True))
        cells.append(marked[method])
    seconds = "" if math.isnan(found.seconds) else f"{1000 * found.seconds:.0f}"
    return LABELS[method], [*cells, (seconds, False)]


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
