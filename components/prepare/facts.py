"""What a dataset says of itself: the quarantine and duplicate tables, counts and digests."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

from components.config import ConfigError, DataConfig
from components.inpainting.dataset import SPLITS
from components.manifest import Draft, write_json
from components.prepare.catalog import Catalog
from components.prepare.remote import shown
from components.prepare.statistics import measure
from components.progress import say

_NAMED = 5  # files that an error names


class QuarantineError(ConfigError):
    """More of the source than ``data_max_quarantine`` cannot be used."""


def refuse_quarantine(catalog: Catalog, config: DataConfig, work: Path) -> None:
    """Raise ``QuarantineError`` where too large a share of the pictures is unusable, naming files and the table."""
    unusable, total = catalog.count("problem != ''"), catalog.count("1")
    if unusable:
        say(f"quarantine: {unusable} of {total} pictures cannot be used")
    if unusable / max(1, total) <= config.max_quarantine:
        return
    catalog.mark_unusable()
    table = work.with_suffix(".quarantine.jsonl")
    _write_lines(table, catalog.left_out("unusable"))
    listed = "; ".join(f"{row['name']}: {row['reason']}" for row in islice(catalog.left_out("unusable"), _NAMED))
    raise QuarantineError(
        f"{unusable} of {total} pictures cannot be used, more than data_max_quarantine = {config.max_quarantine:g}: "
        f"{listed}{'; and others' if unusable > _NAMED else ''}. Remove or replace them (all are listed in {table}) "
        "or raise data_max_quarantine"
    )


def write_tables(folder: Path, catalog: Catalog) -> None:
    """Write ``quarantine.jsonl`` and ``duplicates.jsonl``: every picture that was left out, and why."""
    _write_lines(folder / "quarantine.jsonl", catalog.left_out("unusable"))
    doubles = ((kind, row) for kind in ("duplicate", "near duplicate") for row in catalog.left_out(kind))
    _write_lines(folder / "duplicates.jsonl", ({"kind": kind, **row} for kind, row in doubles))


def write_parameters(folder: Path, config: DataConfig) -> None:
    """Write what decides over pictures and masks as ``parameters.json``, so that the digest covers it."""
    fields = {"image_size", "crop", "masks", "box_size", "num_train", "num_val", "num_test", "seed"}
    write_json(folder / "parameters.json", config.model_dump(include=fields))


def collect_facts(
    draft: Draft,
    catalog: Catalog,
    config: DataConfig,
    counts: dict[str, int],
    used: dict[str, int],
    holes: dict[str, str],
) -> None:
    """Fill the manifest's facts: pictures and photographs ``used`` per split, and what is known of all."""
    content = hashlib.sha256()
    for sha256 in chain.from_iterable(catalog.contents(split) for split in SPLITS):
        content.update(sha256.encode())
    draft.made_from = {"photographs": content.hexdigest()}
    reasons = Counter(kind_of(row["reason"]) for row in catalog.left_out("unusable"))
    notes: Counter[str] = Counter()
    for names, count in catalog.tally("notes"):
        notes.update({note: count for note in names.split(",") if note})
    draft.facts = {
        "source": shown(config.source),
        "image_size": config.image_size,
        "crop": config.crop,
        "box_size": config.box_size,
        "masks": config.mask_weights,
        "seed": config.seed,
        "counts": counts,
        "used": used,
        "photos": dict(catalog.tally("split")),
        "classes": _nested(catalog.tally("class_name, split")),
        "left_out": {fate: catalog.count("fate = ?", fate) for fate in ("unusable", "duplicate", "near duplicate")},
        "reasons": dict(reasons.most_common()),
        "handled": dict(notes.most_common()),
        "enlarged": catalog.count(f"fate = '' AND min(width, height) < {config.image_size}"),
        "sizes": catalog.sizes(),
        "holes": holes,
        "statistics": measure(catalog),
    }


def _nested(rows: list[tuple[Any, ...]]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for outer, inner, count in rows:
        nested.setdefault(outer, {})[inner] = count
    return nested


def kind_of(reason: str) -> str:
    """A reason without what differs from file to file."""
    return re.sub(r"\d+", "N", re.sub(r" \(.*\)", "", reason))


def _write_lines(path: Path, rows: Iterable[dict[str, str]]) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
