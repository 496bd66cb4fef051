"""Write the splits of a dataset: crops in the order of their content, in shards, with fixed holes."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from components.config import DataConfig, Settings
from components.inpainting.dataset import SPLITS, npy_writer
from components.inpainting.inpainter import usable_cores
from components.inpainting.masks import CUSTOM, MaskMixture
from components.manifest import Draft
from components.prepare.catalog import Catalog
from components.prepare.chunks import CHUNK, Cutter, cut_more, run_all
from components.prepare.entries import Entry
from components.prepare.facts import collect_facts, write_parameters, write_tables
from components.prepare.holes import read_masks, write_holes
from components.prepare.sources import open_source
from components.progress import Bar

SHARD_BYTES = 256 << 20
_MAX_OPEN = 128

_Task = tuple[int, Entry, str, int, int]  # picture, entry, digest, first crop, one past the last


def write_dataset(draft: Draft, catalog: Catalog, config: DataConfig, work: Path, settings: Settings) -> None:
    """Fill a dataset's draft from a settled catalogue: splits, holes, tables, facts."""
    for_training, for_evaluation = read_masks(config, work, settings.downloads)
    mixture = MaskMixture(config.mask_weights, config.image_size, config.box_size, for_evaluation)
    limits = {"train": config.num_train, "val": config.num_val, "test": config.num_test}
    holes: dict[str, str] = {}
    counts: dict[str, int] = {}
    used: dict[str, int] = {}
    for split in SPLITS:
        folder = draft.path / split
        folder.mkdir()
        counts[split], used[split] = _write_split(folder, catalog, limits[split], config, work, settings)
        if split != "train":
            holes |= write_holes(folder, mixture, config.seed)
    if for_training is not None:
        np.save(draft.path / "train" / f"masks-{CUSTOM}.npy", for_training)
    write_tables(draft.path, catalog)
    write_parameters(draft.path, config)
    collect_facts(draft, catalog, config, counts, used, holes)


def _write_split(
    folder: Path, catalog: Catalog, limit: int, config: DataConfig, work: Path, settings: Settings
) -> tuple[int, int]:
    """Write a split's pictures and index; returns how many there are, and from how many photographs."""
    split, cutter, used = folder.name, Cutter.of(config), 0
    count, rounds = catalog.choose(split, cutter.varies, limit)
    if rounds > 1:
        open_source(config, work, settings.downloads)  # this machine may not have unpacked it yet
        _cut_more(catalog, split, rounds, count, cutter, work, settings.workers or usable_cores())
    pixels, per_shard = _Pixels(cutter.size), max(1, SHARD_BYTES // (3 * cutter.size**2))
    crops = catalog.crops(split, count)
    with (folder / "index.jsonl").open("w") as index, Bar(f"write {split}", count) as bar:
        for number, start in enumerate(range(0, count, per_shard)):
            size = min(per_shard, count - start)
            with npy_writer(folder / f"images-{number:05}.npy", (size, cutter.size, cutter.size, 3)) as file:
                for facts, path, row in islice(crops, size):
                    used += facts["crop"] == 0  # everyone's first crop comes before anyone's second
                    index.write(json.dumps(facts) + "\n")
                    file.write(pixels.read(path, row))
                    bar.advance()
    pixels.close()
    return count, used


def _cut_more(catalog: Catalog, split: str, rounds: int, count: int, cutter: Cutter, work: Path, workers: int) -> None:
    groups = _groups(catalog, split, rounds)
    tasks = ((group, partial(cut_more, [task[1:] for task in group], cutter, work)) for group in groups)
    with Bar(f"cut {split}", count) as bar:
        for group, path in run_all(tasks, workers):
            cut = [(picture, crop) for picture, *_, start, stop in group for crop in range(start, stop)]
            catalog.add_crops(path, cut)
            bar.advance(len(cut))


def _groups(catalog: Catalog, split: str, rounds: int) -> Iterator[list[_Task]]:
    """The further crops of all pictures, about ``CHUNK`` of them at a time."""
    group: list[_Task] = []
    size = 0
    for picture, entry, sha256 in catalog.to_cut(split):
        for start in range(1, rounds, CHUNK):
            stop = min(rounds, start + CHUNK)
            if group and size + stop - start > CHUNK:
                yield group
                group, size = [], 0
            group.append((picture, entry, sha256, start, stop))
            size += stop - start
    yield group


class _Pixels:
    """Rows of many files of equal-sized pictures; a bounded number of them is open."""

    def __init__(self, size: int) -> None:
        self._row_bytes = 3 * size**2
        self._files: OrderedDict[str, int] = OrderedDict()

    def read(self, path: str, row: int) -> bytes:
        if path not in self._files:
            if len(self._files) >= _MAX_OPEN:
                os.close(self._files.popitem(last=False)[1])
            self._files[path] = os.open(path, os.O_RDONLY)
        self._files.move_to_end(path)
        content = os.pread(self._files[path], self._row_bytes, row * self._row_bytes)
        assert len(content) == self._row_bytes, f"{path} ends within row {row}"
        return content

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
