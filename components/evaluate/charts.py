"""Charts of an evaluation as SVG, for pages without a network: drawn by matplotlib, in the ink of the page."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.inpainting.scores import BIHARMONIC, CANDIDATE, CHAMPION, CHARTS, DAMAGED, LABELS, PAPER, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#0a0b0c"  # replaced by the text colour of the page
_COLOURS = {CANDIDATE: "#c8961e", CHAMPION: "#3c8c7d", BIHARMONIC: "#7d8fb3", PAPER: "#9a6aa8", DAMAGED: "#b0a79a"}
_WIDTH = 5.4  # inches: pages stretch charts, and what is drawn much wider than a phone's page is too small on it
_CURVES = {
    "g_loss": "G loss", "d_loss": "D loss", "d_accuracy": "D accuracy", "mse": "hole MSE of the batch",
    "ssim": "SSIM of the batch",
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "kintsugi", "font.family": "sans-serif", "font.size": 9,
    "text.color": _INK, "axes.edgecolor": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip


def draw_charts(evaluation: Evaluation, history: Path, folder: Path) -> None:
    """Write an SVG for each of ``CHARTS``; ``history`` is the log of a training, JSON lines."""
    folder.mkdir()
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    shown = [name for name in reversed(evaluation.in_tables) if name != DAMAGED]
    with _style():
        for chart, figure in zip(
            CHARTS, (_families(evaluation, shown), _coverage(evaluation, shown), _training(rows)), strict=True
        ):
            (folder / f"{chart}.svg").write_text(_svg(figure))


def _families(evaluation: Evaluation, shown: Sequence[str]) -> Figure:
    """Bars of the mean PSNR, a group per mask family, whiskers from end to end of the interval."""
    axes = _axes(2.8)
    places, width = np.arange(len(evaluation.families)), 0.8 / len(shown)
    for number, name in enumerate(shown):
        intervals = [evaluation.methods[name].intervals[family]["psnr"] for family in evaluation.families]
        means = np.array([interval.mean for interval in intervals])
        reach = np.abs(np.array([(interval.low, interval.high) for interval in intervals]).T - means)
        where = places + (number - (len(shown) - 1) / 2) * width
        axes.bar(where, means, width, yerr=reach, color=_COLOURS[name], label=LABELS[name], ecolor=_INK, capsize=2)
    axes.set_xticks(places, evaluation.families)
    axes.set_ylabel("PSNR, dB")
    return _with_legend(axes)


def _coverage(evaluation: Evaluation, shown: Sequence[str]) -> Figure:
    """Lines of the mean PSNR over all families, a point per coverage bin."""
    axes = _axes(2.8)
    bins = sorted({part.coverage for part in evaluation.slices}, key=_first_number)
    for name in shown:
        means = []
        for found in bins:
            parts = [part for part in evaluation.slices if part.coverage == found]
            weights = [part.num_images for part in parts]
            means.append(np.average([part.methods[name].psnr for part in parts], weights=weights))
        axes.plot(range(len(bins)), means, marker="o", color=_COLOURS[name], label=LABELS[name])
    axes.set_xticks(range(len(bins)), bins)
    axes.set_xlabel("share of the picture that is damaged")
    axes.set_ylabel("PSNR, dB")
    return _with_legend(axes)


def _training(rows: list[dict[str, float]]) -> Figure:
    """Losses, accuracy, MSE and SSIM over the steps, one below the other."""
    figure = _figure(5.6)
    panels = figure.subplots(len(_CURVES), sharex=True)
    for axes, (key, label) in zip(panels, _CURVES.items(), strict=True):
        axes.plot([row["step"] for row in rows], [row[key] for row in rows], color=_COLOURS[CANDIDATE], linewidth=1)
        axes.set_ylabel(label.replace(" of the ", "\nof the "), rotation=0, ha="right", va="center")
    panels[-1].set_xlabel("step")
    return figure


def _first_number(coverage: str) -> int:
    return int("".join(c if c.isdigit() else " " for c in coverage).split()[0]) + coverage.startswith("over")


def _with_legend(axes: Axes) -> Figure:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return axes.figure  # type: ignore[return-value]


def _axes(height: float) -> Axes:
    return _figure(height).subplots()


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    markup = drawn.getvalue()
    markup = re.sub(r"<metadata>.*?</metadata>", "", markup[markup.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", markup).replace(_INK, "currentColor")  # HTML needs no namespaces


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        yield
