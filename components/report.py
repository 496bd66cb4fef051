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
from components.inpainting.scores import CHARTS, LABELS, SHOWN, Decision, Evaluation, Slice
from components.manifest import read_json_lines, read_manifest

_BESIDE: list[tuple[str, str, Callable[[Iterable[float]], float]]] = [
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
        labels=[LABELS[name] for name in evaluation.in_tables],
        tables=[(caption, _rows(evaluation, metric, layout, best)) for caption, metric, layout, best in tables],
        shown=[name for name in evaluation.differences if name in SHOWN],
        slices=[_slice_row(evaluation, part) for part in evaluation.slices],
        beside=[_beside_row(evaluation, name) for name in LABELS if name in evaluation.beside],
        names=LABELS,
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


def _rows(
    evaluation: Evaluation, metric: str, layout: str, best: Callable[[list[float]], float]
) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Per family and overall: every method's score as text, and whether it is the row's best."""
    rows = []
    for family in [*evaluation.families, "overall"]:
        values = [getattr(evaluation.score(name, family), metric) for name in evaluation.in_tables]
        rows.append((family, [(layout % value, value == best(values)) for value in values]))
    return rows


def _slice_row(evaluation: Evaluation, part: Slice) -> tuple[str, int, list[tuple[str, bool]]]:
    """A slice's name, how many pictures it has, and every method's SSIM as text and whether it is the best."""
    values = [part.methods[name].ssim for name in evaluation.in_tables]
    where = ", ".join(filter(None, (part.family, part.coverage, part.class_name)))
    return where, part.num_images, [(f"{value:.4f}", value == max(values)) for value in values]


def _beside_row(evaluation: Evaluation, method: str) -> tuple[str, list[tuple[str, bool]]]:
    """One method of the table of all methods: its name, and each score as text and whether it is the best."""
    others = [other.score for other in evaluation.beside.values()]
    found = evaluation.beside[method]
    cells = [
        (
            layout % getattr(found.score, metric),
            getattr(found.score, metric) == best(getattr(o, metric) for o in others),
        )
        for metric, layout, best in _BESIDE
    ]
    seconds = "" if math.isnan(found.seconds) else f"{1000 * found.seconds:.0f}"
    return LABELS[method], [*cells, (seconds, False)]


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
