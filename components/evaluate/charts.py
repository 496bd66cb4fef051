"""Charts of an evaluation as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.drawing import GOLD, INK, new_figure, style, svg, training_curves
from components.inpainting.scores import (
    BIHARMONIC,
    CANDIDATE,
    CHAMPION,
    CHARTS,
    DAMAGED,
    LABELS,
    OVERALL,
    PAPER,
    Evaluation,
)
from components.manifest import read_json_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {CANDIDATE: GOLD, CHAMPION: "#3c8c7d", BIHARMONIC: "#7d8fb3", PAPER: "#9a6aa8", DAMAGED: "#b0a79a"}


def draw_charts(evaluation: Evaluation, history: Path, folder: Path) -> None:
    """Write an SVG for each of ``CHARTS``; ``history`` is the log of a training, JSON lines."""
    folder.mkdir()
    shown = [name for name in reversed(evaluation.in_tables) if name != DAMAGED]
    with style():
        compared = svg(_gains(evaluation)), svg(_coverage(evaluation, shown))
    drawn = *compared, training_curves(read_json_lines(history))
    for chart, markup in zip(CHARTS, drawn, strict=True):
        (folder / f"{chart}.svg").write_text(markup)


def _gains(evaluation: Evaluation) -> Figure:
    """Bars of the PSNR gained on each other method, per mask family, whiskers from end to end of the paired interval.

    A panel with a scale of its own for each method: what is won on the champion is small beside what is won on others.
    """
    others = [name for name in evaluation.in_tables if name in evaluation.differences]
    places = [*evaluation.families, OVERALL]
    figure = new_figure(1.5 * len(others) + 0.3)
    for axes, name in zip(figure.subplots(len(others), sharex=True, squeeze=False)[:, 0], others, strict=True):
        gains = [evaluation.differences[name][place]["psnr"] for place in places]
        means, reach = [gain.mean for gain in gains], [gain.high - gain.mean for gain in gains]
        axes.bar(places, means, 0.6, yerr=reach, color=_COLOURS[name], ecolor=INK, capsize=3)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_title(f"over {LABELS[name]}", loc="left", fontsize=9)
        axes.set_ylabel("dB gained")
    return figure


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


def _first_number(coverage: str) -> int:
    return int("".join(c if c.isdigit() else " " for c in coverage).split()[0]) + coverage.startswith("over")


def _with_legend(axes: Axes) -> Figure:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return axes.figure  # type: ignore[return-value]


def _axes(height: float) -> Axes:
    return new_figure(height).subplots()
