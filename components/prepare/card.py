"""The data card: one page that shows what a dataset holds."""

from __future__ import annotations

from pathlib import Path

from components.inpainting.dataset import SPLITS, PreparedDataset
from components.inpainting.images import encode_png, grid
from components.inpainting.masks import coverage
from components.manifest import Manifest
from components.report import data_image, render

_NUM_ROWS = 8
_MAX_NAMES = 40


def render_card(folder: Path, manifest: Manifest) -> str:
    """The card of a finished dataset, as one self-contained HTML page."""
    dataset = PreparedDataset(folder, manifest)
    test = dataset.split("test")
    damaged = [test.damaged(family) for family in dataset.families]
    rows = [[test.images[i], *(pictures[i] for pictures in damaged)] for i in range(min(_NUM_ROWS, len(test.images)))]
    names = {split: sorted({row["photo"] for row in dataset.split(split).index}) for split in SPLITS}
    return render(
        "card.html",
        title="Dataset card",
        manifest=manifest,
        facts=manifest.facts,
        names=names if sum(map(len, names.values())) <= _MAX_NAMES else {},
        coverage={family: coverage(test.masks(family)) for family in dataset.families},
        grid=data_image(encode_png(grid(rows, ["truth", *dataset.families], scale=max(1, 128 // dataset.image_size)))),
    )
