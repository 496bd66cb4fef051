"""What configuration is written in: names of mask families, lists with weights or limits, and what is said of typos."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

MASK_FAMILIES = (
    "center_box", "box", "boxes", "strokes_thin", "strokes", "strokes_wide", "scratches", "cracks", "text",
    "blocks", "lines", "half", "downscale", "custom",
)  # fmt: skip
NAMED_SOURCES = ("sample", "cifar10")
_WEIGHTS = (0.001, 1000)


class ConfigError(ValueError):
    """A parameter, preset or setting is wrong; the message says which, and what to do."""


def split_names(text: str) -> tuple[str, ...]:
    """Split a comma-separated list, dropping blanks and repeats, keeping the order."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_weights(text: str) -> dict[str, float]:
    """Parse ``"box:2,text"`` to ``{"box": 2.0, "text": 1.0}``."""
    weights: dict[str, float] = {}
    for part in split_names(text):
        name, _, weight = part.partition(":")
        if name.strip() in weights:
            raise ValueError(f"names {name.strip()!r} twice")
        try:
            weights[name.strip()] = float(weight or 1)
        except ValueError:
            raise ValueError(f"{part!r} has no number behind the colon; write e.g. {name.strip()}:2") from None
        if not _WEIGHTS[0] <= weights[name.strip()] <= _WEIGHTS[1]:
            raise ValueError(f"{part!r}: a weight lies between {_WEIGHTS[0]:g} and {_WEIGHTS[1]:g}")
    return weights


def parse_limits(text: str) -> dict[str, float]:
    """Parse ``"box:0.8,text:0.95"``, a limit for every mask family that is named."""
    limits: dict[str, float] = {}
    for part in split_names(text):
        family, _, limit = part.partition(":")
        require_family(family.strip())
        if family.strip() in limits:
            raise ValueError(f"names {family.strip()!r} twice")
        try:
            limits[family.strip()] = float(limit)
        except ValueError:
            raise ValueError(f"{part!r} has no number behind a colon; write e.g. {family.strip()}:0.8") from None
        if not -1 <= limits[family.strip()] <= 1:
            raise ValueError(f"{part!r}: a limit lies between -1 and 1")
    return limits


def require_family(name: str) -> None:
    """Raise ``ValueError`` unless ``name`` is a mask family."""
    if name not in MASK_FAMILIES:
        raise ValueError(f"{name!r} is no mask family{suggestion(name, MASK_FAMILIES)}")


def suggestion(name: str, known: Mapping[str, Any] | tuple[str, ...] | list[str]) -> str:
    """The tail of an error about ``name``: the nearest known name, else all of them."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
