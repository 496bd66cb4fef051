"""What a collection looks like in numbers, and how far it has drifted from an earlier one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from components.config import ConfigError, locate
from components.inpainting.dataset import KIND
from components.manifest import MANIFEST, Manifest
from components.prepare.catalog import Catalog

_BINS = 32
_SHIFTED, _DRIFTED = 0.1, 0.25

FEATURES = {
    "side": ("sqrt(width * height)", "side, pixels", (2.0**4, 2.0**14)),
    "red": ("red", "red, mean in [0, 1]", (0.0, 1.0)),
    "green": ("green", "green, mean in [0, 1]", (0.0, 1.0)),
    "blue": ("blue", "blue, mean in [0, 1]", (0.0, 1.0)),
    "contrast": ("contrast", "contrast, deviation of luma", (0.0, 0.5)),
    "sharpness": ("sharpness", "sharpness, variance of the Laplacian", (1e-5, 1.0)),
}
"""Feature to its SQL expression, what people call it, and the range of its histogram."""

_LOGARITHMIC = ("side", "sharpness")


class Statistic(BaseModel):
    """One feature of a collection: mean, standard deviation and a histogram over the feature's fixed bins."""

    model_config = ConfigDict(frozen=True)

    mean: float
    std: float
    histogram: list[int]


class Drift(BaseModel):
    """How one feature differs from the reference."""

    name: str
    before: float
    now: float
    psi: float

    @property
    def verdict(self) -> str:
        """The rule of thumb of credit scoring (Siddiqi, "Credit Risk Scorecards", 2006)."""
        return "drifted" if self.psi > _DRIFTED else "shifted" if self.psi > _SHIFTED else "stable"


def measure(catalog: Catalog) -> dict[str, Any]:
    """Statistics of the kept pictures, as a manifest's facts hold them."""
    features = {}
    for name, (expression, _, _) in FEATURES.items():
        values = np.fromiter(catalog.values(expression), np.float64)
        histogram, _ = np.histogram(np.clip(values, *edges(name)[[0, -1]]), edges(name))
        mean, std = round(float(values.mean()), 6), round(float(values.std()), 6)
        features[name] = Statistic(mean=mean, std=std, histogram=histogram.tolist()).model_dump()
    return {"features": features, "classes": dict(catalog.tally("class_name"))}


def edges(name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The fixed edges of a feature's histogram."""
    low, high = FEATURES[name][2]
    return np.geomspace(low, high, _BINS + 1) if name in _LOGARITHMIC else np.linspace(low, high, _BINS + 1)


def compare(now: dict[str, Any], reference: dict[str, Any]) -> list[Drift]:
    """The drift of every feature and of the balance of classes, by population stability index."""
    rows = []
    for name, (_, label, _) in FEATURES.items():
        if name in reference["features"]:
            new, old = (Statistic(**facts["features"][name]) for facts in (now, reference))
            psi = stability_index(np.array(old.histogram), np.array(new.histogram))
            rows.append(Drift(name=label, before=old.mean, now=new.mean, psi=psi))
    names = sorted({*now["classes"], *reference["classes"]})
    old_counts, new_counts = (np.array([facts["classes"].get(name, 0) for name in names]) for facts in (reference, now))
    psi = stability_index(old_counts, new_counts)
    rows.append(Drift(name="classes, share of the largest", before=float(old_counts.max() / old_counts.sum()),
                      now=float(new_counts.max() / new_counts.sum()), psi=psi))  # fmt: skip
    return rows


def stability_index(before: np.ndarray[Any, Any], now: np.ndarray[Any, Any]) -> float:
    """Population stability index of two histograms, ``sum((q - p) ln(q / p))``; each bin counts half a picture more."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (before, now))
    return float(((q - p) * np.log(q / p)).sum())


def read_reference(place: str) -> Manifest:
    """The manifest of an earlier dataset, a folder or a URI. Raises ``ConfigError`` where there is none."""
    try:
        if "://" in place:
            from components.prepare import remote

            content = remote.read(f"{place.rstrip('/')}/{MANIFEST}")
        else:
            content = (Path(locate("data_reference", place)) / MANIFEST).read_bytes()
        manifest = Manifest.model_validate(json.loads(content))
        if manifest.kind != KIND or "statistics" not in manifest.facts:
            raise ValueError
    except ConfigError as error:
        raise ConfigError(str(error).replace("data_source", "data_reference")) from None
    except (OSError, ValueError):
        raise ConfigError(
            f"data_reference: {place!r} is no dataset that prepare wrote; give the folder that holds its {MANIFEST}"
        ) from None
    return manifest
