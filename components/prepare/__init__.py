"""The prepare step: collections of pictures in, a clean dataset with fixed evaluation holes out.

It has two halves. ``ingest`` reads a share of the source on all cores, so that many pods can each read
one; ``prepare`` merges what they read. The dataset depends on the pictures and the parameters alone,
not on how many pods, processes or interrupted attempts it took.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from components.config import ConfigError, DataConfig, ReadOrder, Settings
from components.inpainting.dataset import KIND
from components.inpainting.inpainter import usable_cores
from components.manifest import Manifest, complete_folder, read_manifest, write_file
from components.prepare.card import render_card
from components.prepare.catalog import Catalog
from components.prepare.facts import refuse_quarantine
from components.prepare.ingest import Cutter, chunked, ingest_chunks
from components.prepare.merge import write_dataset
from components.prepare.sources import open_source, work_folder
from components.prepare.statistics import read_reference
from components.progress import Bar, say, step

PART = "part"


@step("ingest")
def ingest(order: ReadOrder, part: Path, settings: Settings) -> None:
    """Read the chunks of the source that fall to a shard into a part folder.

    What was read before a kill is not read again. Raises ``ConfigError`` where there is nothing to read.
    """
    config, shard = order.config, order.shard
    cutter = Cutter.of(config)
    alone = config.num_shards == 1
    with _work(config, settings, "" if alone else f"-{shard.replace('/', '-of-')}") as work:
        source = open_source(config, work, settings.downloads)
        total = sum(len(chunk) for _, chunk in chunked(source.entries(), shard))
        resumed = ", going on where an earlier start stopped" if any(work.glob("chunks/*")) else ""
        say(f"shard {shard}: {total} files that should be pictures{resumed}")
        with complete_folder(part, PART) as draft, Bar("read pictures", total) as bar:
            chunks = chunked(source.entries(), shard)
            for number, size, stem in ingest_chunks(chunks, cutter, work, settings.workers or usable_cores()):
                for suffix in (".bin", ".jsonl"):
                    _link(stem.with_suffix(suffix), draft.path / f"{number:07}{suffix}")
                bar.advance(size)
            draft.facts = {"shard": shard, "licence": source.licence, "config": config.model_dump_json()}
        if not alone:  # else prepare may cut more from what was unpacked here
            _remove(work)


@step("prepare")
def prepare(config: DataConfig, parts: Sequence[Path], dataset: Path, card: Path, settings: Settings) -> Manifest:
    """Merge the parts into a dataset folder and its card (HTML), and return its manifest.

    Raises ``ConfigError`` where parts are missing, too many pictures cannot be used, or too few are left.
    """
    reference = read_reference(config.reference) if config.reference else None
    licence = _check_parts(config, parts)
    with _work(config, settings) as work:
        with closing(Catalog(work / "catalog.sqlite")) as catalog:
            stems = sorted((path for part in parts for path in part.glob("*.jsonl")), key=lambda path: path.name)
            catalog.load(stems, len(stems))
            refuse_quarantine(catalog, config, work)
            catalog.settle()
            with complete_folder(dataset, KIND) as draft:
                write_dataset(draft, catalog, config, work, settings)
                draft.facts["licence"] = licence
                if reference:
                    draft.made_from["reference"] = reference.digest
        _remove(work)
    manifest = read_manifest(dataset, KIND)
    write_file(card, render_card(dataset, manifest, reference))
    counts = ", ".join(f"{count} {split}" for split, count in manifest.facts["counts"].items())
    say(f"dataset {manifest.digest[:12]}: {counts}; left out {sum(manifest.facts['left_out'].values())}")
    return manifest


def prepare_here(config: DataConfig, folder: Path, settings: Settings) -> Path:
    """Both halves on this machine: ``dataset`` and ``card.html`` in ``folder``; returns the dataset's folder."""
    work = work_folder(config, settings.make_state())
    parts = [work / f"part-{number}" for number in range(config.num_shards)]
    for shard, part in zip(config.shards, parts, strict=True):
        ingest(ReadOrder(config=config, shard=shard), part, settings)
    prepare(config, parts, folder / "dataset", folder / "card.html", settings)
    return folder / "dataset"


def _check_parts(config: DataConfig, parts: Sequence[Path]) -> str:
    """Whether these are all shards of one reading; returns the source's licence note."""
    facts = [read_manifest(part, PART).facts for part in parts]
    if sorted(fact["shard"] for fact in facts) != sorted(config.shards):
        given = ", ".join(fact["shard"] for fact in facts) or "none"
        raise ConfigError(f"data_num_shards = {config.num_shards}, but the parts given are {given}; read them again")
    if any(fact["config"] != config.model_dump_json() for fact in facts):
        raise ConfigError("the parts were read with other data parameters; read them again")
    return str(facts[0]["licence"])


@contextmanager
def _work(config: DataConfig, settings: Settings, suffix: str = "") -> Iterator[Path]:
    """The work folder of a configuration, for one process at a time; shards have one each, to read side by side."""
    from filelock import FileLock

    work = work_folder(config, settings.make_state())
    work = work.with_name(work.name + suffix)
    work.parent.mkdir(exist_ok=True)
    with FileLock(work.with_suffix(".lock")):
        work.mkdir(exist_ok=True)
        yield work


def _remove(work: Path) -> None:
    """Remove the work folder so that a kill half-way leaves nothing that looks like finished chunks."""
    gone = work.with_suffix(".gone")
    shutil.rmtree(gone, ignore_errors=True)
    work.rename(gone)
    shutil.rmtree(gone)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
