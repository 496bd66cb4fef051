"""The data card: one page that shows what a dataset holds."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Bytes, encode_png, grid, resize
from components.inpainting.masks import BINS, coverage
from components.manifest import Manifest
from components.prepare.statistics import compare
from components.report import data_image, render

NUM_COLUMNS = 8
_NUM_SAMPLE_ROWS = 3
MAX_ROWS = 30  # of a table that may be long
MAX_CLASSES = 30
_SIDE = 96  # pixels that a picture takes on the page


def render_card(folder: Path, manifest: Manifest, reference: Manifest | None = None) -> str:
    """The card of a finished dataset, as one self-contained HTML page; ``reference`` is what drift is told from."""
    dataset, facts = PreparedDataset(folder, manifest), manifest.facts
    drift = compare(facts["statistics"], reference.facts["statistics"]) if reference else []
    classes = sorted(facts["classes"].items(), key=lambda item: -sum(item[1].values()))
    return render(
        "card.html",
        title="Dataset card",
        manifest=manifest,
        facts=facts,
        classes=classes[:MAX_CLASSES],
        num_classes=len(classes),
        samples=_samples(dataset),
        families=[_family(dataset, family) for family in dataset.families],
        bins=[f"{100 * low:.0f}-{100 * high:.0f}" for low, high in BINS] + ["60-100"],
        quarantine=_first_rows(folder / "quarantine.jsonl"),
        duplicates=_first_rows(folder / "duplicates.jsonl"),
        max_rows=MAX_ROWS,
        drift=drift,
        reference=reference,
    )


def _samples(dataset: PreparedDataset) -> str:
    """Training pictures, evenly from the whole split."""
    images = dataset.split("train").images
    count = min(_NUM_SAMPLE_ROWS * NUM_COLUMNS, len(images))
    pictures = images.take(np.linspace(0, len(images) - 1, count).astype(int))
    full = max(1, count // NUM_COLUMNS)
    rows = [list(pictures[i * NUM_COLUMNS : (i + 1) * NUM_COLUMNS]) for i in range(full)]
    return sheet(rows, dataset.image_size)


def _family(dataset: PreparedDataset, family: str) -> dict[str, Any]:
    """One mask family: its share in training, the coverage of its fixed holes, and test pictures under it."""
    test, weights = dataset.split("test"), dataset.mixture.weights
    shares = coverage(test.masks(family))
    counts, _ = np.histogram(shares, [0, *(high for _, high in BINS), 1.0001])
    columns = min(NUM_COLUMNS, len(shares))
    order = np.argsort(shares, kind="stable")[np.linspace(0, len(shares) - 1, columns).astype(int)]
    holes = [np.repeat(mask[..., None] * np.uint8(255), 3, axis=2) for mask in test.masks(family)[order]]
    return {
        "name": family,
        "weight": weights[family] / sum(weights.values()),
        "mean": float(shares.mean()),
        "least": float(shares.min()),
        "most": float(shares.max()),
        "bars": (counts / counts.max()).tolist(),
        "counts": counts.tolist(),
        "sheet": sheet([holes, list(test.damaged(family)[order])], dataset.image_size),
    }


def sheet(rows: list[list[Bytes]], size: int) -> str:
    """Rows of pictures, uint8 ``size,size,3``, none longer than the first, as one picture (a ``data:`` URI)."""
    small = [[resize(picture, _SIDE, _SIDE) if size > _SIDE else picture for picture in row] for row in rows]
    return data_image(encode_png(grid(small, [""] * len(rows[0]), scale=max(1, _SIDE // size), header=0)))


def _first_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return [json.loads(line) for line in islice(file, MAX_ROWS)]
