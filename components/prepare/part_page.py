"""The page of one shard of a source: what was read from where, what of it can be used, and what that looks like."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.config import DataConfig
from components.inpainting.images import Bytes
from components.manifest import Manifest
from components.prepare.card import MAX_CLASSES, MAX_ROWS, NUM_COLUMNS, sheet
from components.prepare.facts import kind_of
from components.prepare.remote import shown
from components.report import render

_NUM_ROWS = 3  # of the contact sheet


@dataclass
class Reading:
    """What became of a part's files; ``stems`` has the number of crops that lie in each chunk's ``.bin``."""

    classes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    handled: Counter[str] = field(default_factory=Counter)
    unusable: list[dict[str, str]] = field(default_factory=list)  # the first ``MAX_ROWS``
    shortest: int = 0  # side in pixels
    longest: int = 0
    stems: dict[Path, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """How many pictures can be used."""
        return self.classes.total()

    @classmethod
    def of(cls, part: Path) -> Reading:
        """Go through the rows of a part folder, one at a time: there may be a million."""
        reading = cls()
        for path in sorted(part.glob("*.jsonl")):
            before = reading.kept
            with path.open() as file:
                for line in file:
                    reading._count(json.loads(line))
            reading.stems[path.with_suffix("")] = reading.kept - before
        return reading

    def _count(self, row: dict[str, Any]) -> None:
        if row["problem"]:
            self.reasons[kind_of(row["problem"])] += 1
            if len(self.unusable) < MAX_ROWS:
                self.unusable.append({"name": row["name"], "reason": row["problem"]})
            return
        self.classes[row["class_name"]] += 1
        self.handled.update(row["notes"])
        short, long = sorted((row["width"], row["height"]))
        self.shortest = min(self.shortest or short, short)
        self.longest = max(self.longest, long)


def render_part(part: Path, manifest: Manifest, config: DataConfig, total: int) -> str:
    """The page (HTML) of a part of ``total`` files that should be pictures."""
    reading = Reading.of(part)
    return render(
        "ingest.html",
        title=f"Pictures read: shard {manifest.facts['shard']}",
        manifest=manifest,
        config=config,
        source=shown(config.source),
        total=total,
        reading=reading,
        other=total - reading.kept - reading.reasons.total(),
        classes=reading.classes.most_common(MAX_CLASSES),
        max_rows=MAX_ROWS,
        samples=_contact_sheet(reading, config.image_size) if reading.kept else "",
    )


def _contact_sheet(reading: Reading, size: int) -> str:
    """Crops, evenly from all that were kept."""
    count = min(_NUM_ROWS * NUM_COLUMNS, reading.kept)
    crops = list(_crops(reading.stems, np.linspace(0, reading.kept - 1, count).astype(int).tolist(), size))
    return sheet([crops[start : start + NUM_COLUMNS] for start in range(0, count, NUM_COLUMNS)], size)


def _crops(stems: dict[Path, int], wanted: list[int], size: int) -> Iterator[Bytes]:
    """The crops at positions, rising, in the chunks one behind the other."""
    first = 0
    for stem, number in stems.items():
        here = [position - first for position in wanted if first <= position < first + number]
        if here:
            crops = np.memmap(stem.with_suffix(".bin"), np.uint8, "r", shape=(number, size, size, 3))
            yield from (np.array(crops[position]) for position in here)
        first += number
