"""Drawings for pages without a network: SVG by matplotlib, in the ink of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#0a0b0c"
"""Replaced by the text colour of the page."""
GOLD = "#c8961e"
"""Of the model that the page is about."""

_WIDTH = 5.4  # inches: pages stretch charts, and what is drawn much wider than a phone's page is too small on it
_CURVES = {
    "g_loss": "G loss", "d_loss": "D loss", "d_accuracy": "D accuracy", "mse": "hole MSE of the batch",
    "ssim": "SSIM of the batch",
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "kintsugi", "font.family": "sans-serif", "font.size": 9,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip


def new_figure(height: float) -> Figure:
    """A figure as wide as a page, ``height`` in inches; to be drawn within ``style``."""
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, height), layout="constrained")


def svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    markup = drawn.getvalue()
    markup = re.sub(r"<metadata>.*?</metadata>", "", markup[markup.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", markup).replace(INK, "currentColor")  # HTML needs no namespaces


@contextmanager
def style() -> Iterator[None]:
    """Draw as our pages look."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        yield


def training_curves(rows: Sequence[Mapping[str, float]]) -> str:
    """A training's losses, accuracy, MSE and SSIM over its steps, one below the other; ``rows`` are its log."""
    with style():
        figure = new_figure(5.6)
        panels = figure.subplots(len(_CURVES), sharex=True)
        for axes, (key, label) in zip(panels, _CURVES.items(), strict=True):
            axes.plot([row["step"] for row in rows], [row[key] for row in rows], color=GOLD, linewidth=1)
            axes.set_ylabel(label.replace(" of the ", "\nof the "), rotation=0, ha="right", va="center")
        panels[-1].set_xlabel("step")
        return svg(figure)
