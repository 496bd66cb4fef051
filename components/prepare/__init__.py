"""The prepare step: collections of pictures in, a clean dataset with fixed evaluation holes out.

It has two halves. ``ingest`` reads a share of the source on all cores, so that many pods can each read
one; ``prepare`` merges what they read. The dataset depends on the pictures and the parameters alone,
not on how many pods, processes or interrupted attempts it took.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from components.config import ConfigError, DataConfig, ReadOrder, Settings, suggestion
from components.inpainting.dataset import KIND
from components.inpainting.inpainter import usable_cores
from components.manifest import Manifest, complete_folder, read_manifest, write_file
from components.prepare.card import render_card
from components.prepare.catalog import Catalog
from components.prepare.chunks import Cutter, chunked, ingest_chunks
from components.prepare.entries import Entry
from components.prepare.facts import refuse_quarantine
from components.prepare.holes import read_masks
from components.prepare.merge import write_dataset
from components.prepare.part_page import render_part
from components.prepare.sources import Source, open_source, work_folder
from components.prepare.statistics import read_reference
from components.progress import Bar, say, step

PART = "part"


@step("ingest")
def ingest(order: ReadOrder, part: Path, report: Path, settings: Settings) -> None:
    """Read the chunks of the source that fall to a shard into a part folder, and write a page (HTML) about them.

    What was read before a kill is not read again. Raises ``ConfigError`` where the source cannot be read
    or has not all the classes asked for, and where the masks or the reference cannot be used.
    """
    config, shard, cutter = order.config, order.shard, Cutter.of(order.config)
    if config.reference:
        read_reference(config.reference)
    with _work(config, settings) as work:
        read_masks(config, work, settings.downloads)
        source = open_source(config, work, settings.downloads)
        total, listing = _survey(source, shard)
        resumed = ", going on where an earlier start stopped" if any(work.glob("chunks/*.jsonl")) else ""
        say(f"shard {shard}: {total} files that should be pictures{resumed}")
        with complete_folder(part, PART) as draft, Bar("read pictures", total) as bar:
            chunks = chunked(source.entries(), shard)
            for number, size, stem in ingest_chunks(chunks, cutter, work, settings.workers or usable_cores()):
                for suffix in (".bin", ".jsonl"):
                    _link(stem.with_suffix(suffix), draft.path / f"{number:07}{suffix}")
                bar.advance(size)
            draft.made_from = {"listing": listing, "config": _digest(config)}
            draft.facts = {"shard": shard, "licence": source.licence}
    write_file(report, render_part(part, read_manifest(part, PART), config, total))


@step("prepare")
def prepare(config: DataConfig, parts: Sequence[Path], dataset: Path, card: Path, settings: Settings) -> Manifest:
    """Merge the parts into a dataset folder and its card (HTML), and return its manifest.

    Raises ``ConfigError`` where parts are missing, too many pictures cannot be used, or too few are left.
    """
    reference = read_reference(config.reference) if config.reference else None
    licence = _check_parts(config, parts)
    rows = sorted((path for part in parts for path in part.glob("*.jsonl")), key=lambda path: path.name)
    with (
        _work(config, settings) as work,
        tempfile.TemporaryDirectory(dir=work) as scratch,
        closing(Catalog(Path(scratch) / "catalog.sqlite")) as catalog,
    ):
        catalog.load([path.with_suffix("") for path in rows], len(rows))
        refuse_quarantine(catalog, config, work)
        catalog.settle()
        with complete_folder(dataset, KIND) as draft:
            write_dataset(draft, catalog, config, work, settings)
            draft.facts["licence"] = licence
            if reference:
                draft.made_from["reference"] = reference.digest
    _clear(work)
    manifest = read_manifest(dataset, KIND)
    write_file(card, render_card(dataset, manifest, reference))
    counts = ", ".join(f"{count} {split}" for split, count in manifest.facts["counts"].items())
    say(f"dataset {manifest.digest[:12]}: {counts}; left out {sum(manifest.facts['left_out'].values())}")
    return manifest


def prepare_here(config: DataConfig, folder: Path, settings: Settings) -> Path:
    """Both halves on this machine: ``dataset`` and ``card.html`` in ``folder``; returns the dataset's folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); choose another folder") from None
    for left in folder.glob(".dataset.*"):  # by a run that was killed
        shutil.rmtree(left)
    parts = [folder / ".parts" / str(number) for number in range(config.num_shards)]
    for shard, part in zip(config.shards, parts, strict=True):
        ingest(ReadOrder(config=config, shard=shard), part, part.with_suffix(".html"), settings)
    prepare(config, parts, folder / "dataset", folder / "card.html", settings)
    shutil.rmtree(folder / ".parts")
    return folder / "dataset"


def _survey(source: Source, shard: str) -> tuple[int, str]:
    """Go through a source's listing: the number of a shard's files, and a digest of all of them."""
    seen, digest = set(), hashlib.sha256()

    def entries() -> Iterator[Entry]:
        for entry in source.everything():
            seen.add(entry.class_name)
            if source.wants(entry):
                digest.update(f"{entry.name}\0{entry.size}\n".encode())
                yield entry

    total = sum(len(chunk) for _, chunk in chunked(entries(), shard))
    if not seen:
        raise ConfigError(
            "data_source holds no file that may be a picture; give the folder that holds them, or the archive itself"
        )
    for name in source.classes:
        if name not in seen:
            known = sorted(seen - {""})
            advice = suggestion(name, known) if known else "; it has none at all, so data_classes must be auto"
            raise ConfigError(f"data_classes: the source has no class {name!r}{advice}")
    return total, digest.hexdigest()


def _check_parts(config: DataConfig, parts: Sequence[Path]) -> str:
    """Whether these are all shards of one reading; returns the source's licence note."""
    manifests = [read_manifest(part, PART) for part in parts]
    shards = [manifest.facts["shard"] for manifest in manifests]
    if sorted(shards) != sorted(config.shards):
        given = ", ".join(shards) or "none"
        raise ConfigError(f"data_num_shards = {config.num_shards}, but the parts given are {given}; read them again")
    if {manifest.made_from["config"] for manifest in manifests} != {_digest(config)}:
        raise ConfigError("the parts were read with other data parameters; read them again")
    if len({manifest.made_from["listing"] for manifest in manifests}) > 1:
        raise ConfigError("the source changed while its shards were read; run again")
    return str(manifests[0].facts["licence"])


def _digest(config: DataConfig) -> str:
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()


@contextmanager
def _work(config: DataConfig, settings: Settings) -> Iterator[Path]:
    """The work folder of a configuration, kept while somebody uses it. Chunks have the names of their content."""
    work = work_folder(config, settings.make_state())
    work.parent.mkdir(exist_ok=True)
    with work.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        work.mkdir(exist_ok=True)
        yield work


def _clear(work: Path) -> None:
    """Remove the work folder, unless somebody else uses it, so that a kill half-way leaves no half-finished chunk."""
    with work.with_suffix(".lock").open("w") as lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = work.with_suffix(".gone")
        shutil.rmtree(gone, ignore_errors=True)
        with suppress(FileNotFoundError):  # somebody else cleared it
            work.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
