"""Read pictures: decode, check, measure and cut them, on all cores, in chunks that a killed run need not repeat."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, ImageStat

from components.config import ConfigError, DataConfig
from components.inpainting.images import (
    Bytes,
    ImageError,
    NoMemoryError,
    Photograph,
    UnknownFormatError,
    decode_photograph,
    resize,
)
from components.manifest import write_file
from components.prepare.entries import Entry, VanishedError, read_entry
from components.progress import STOP_SIGNALS, say

CHUNK = 256  # pictures at most; also crops in a file of further crops
MIN_SIDE = 16
_FLAT = 1.0  # grey levels of deviation below which a picture shows nothing
_CROP_SCALES = (1.5, 6.0)  # random crops are this many times the picture size before they are scaled down
_ROOM = 1.25  # long to short side, from where squares of the short side differ
_SHARPNESS_SIDE = 256

_DEADLY = "reading it kills the process: it is made to, or needs more memory than there is"

K = TypeVar("K")
T = TypeVar("T")


class WorkersDied(ConfigError):
    """A process that decodes pictures was killed; ``keys`` are those of the tasks that did not end."""

    def __init__(self, keys: list[Any]) -> None:
        super().__init__(
            "a process that decodes pictures was killed, most likely because memory ran out; give the step more, "
            "or set KINTSUGI_WORKERS=1, and run again: what was read is kept"
        )
        self.keys = keys


@dataclass(frozen=True)
class Cutter:
    """How pictures are cut: the part of ``DataConfig`` that decides over pixels."""

    size: int
    crop: str
    seed: int

    @classmethod
    def of(cls, config: DataConfig) -> Cutter:
        """The cutter of a configuration."""
        return cls(config.image_size, config.crop, config.seed)

    @property
    def at_least(self) -> int:
        """Short side in pixels that a picture keeps when it is reduced before it is cut."""
        return round(self.size * (_CROP_SCALES[1] if self.crop == "random" else 2))

    def varies(self, width: int, height: int) -> bool:
        """Whether a picture of that size gives crops that differ."""
        short, long = sorted((width, height))
        return self.crop == "random" and (long >= _ROOM * short or short > round(self.size * _CROP_SCALES[0]))

    def cut(self, pixels: Bytes, sha256: str, number: int) -> Bytes:
        """Crop ``number`` of a picture, uint8 ``size,size,3``; a picture of that size already is left as it is."""
        height, width = pixels.shape[:2]
        if (height, width) == (self.size, self.size) or self.crop == "stretch":
            return resize(pixels, self.size, self.size)
        side, top, left = min(height, width), (height - min(height, width)) // 2, (width - min(height, width)) // 2
        if self.crop == "random":
            rng = np.random.default_rng([self.seed, int(sha256[:12], 16), number])
            side = min(side, round(self.size * float(np.exp(rng.uniform(*np.log(_CROP_SCALES))))))
            top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        return resize(pixels[top : top + side, left : left + side], self.size, self.size)


def ingest_chunks(
    chunks: Iterable[tuple[int, list[Entry]]], cutter: Cutter, work: Path, workers: int
) -> Iterator[tuple[int, int, Path]]:
    """Read numbered chunks of entries; yields each number, its entries' count and the stem of its files, in any order.

    ``<stem>.jsonl`` has a row for each entry, ``<stem>.bin`` the first crop of each that can be used.
    A chunk whose files are there already is not read again.
    """
    folder = work / "chunks"
    folder.mkdir(parents=True, exist_ok=True)
    waiting = iter(chunks)
    while True:
        tasks = (((number, entries), partial(_read_chunk, entries, cutter, work)) for number, entries in waiting)
        try:
            for (number, entries), stem in run_all(tasks, workers):
                yield number, len(entries), stem
            return
        except WorkersDied as died:
            say("a process that decodes pictures was killed; looking for the picture that did it")
            for number, entries in died.keys:
                yield number, len(entries), _read_carefully(entries, cutter, work)


def _read_carefully(entries: list[Entry], cutter: Cutter, work: Path) -> Path:
    """Read a chunk in a process of its own; a picture that kills even one read alone gets a problem."""
    try:
        return _run_alone(_read_chunk, entries, cutter, work)
    except BrokenProcessPool:
        pass
    checked = []
    for entry in entries:
        try:
            _run_alone(_read_one, entry, cutter, work)
            checked.append(entry)
        except BrokenProcessPool:
            checked.append(replace(entry, problem=_DEADLY))
    return _read_chunk(checked, cutter, work)


def _run_alone(function: Callable[..., T], *arguments: object) -> T:
    with ProcessPoolExecutor(1, initializer=_start_worker, initargs=(os.getpid(),)) as pool:
        return pool.submit(function, *arguments).result()


def chunk_name(entries: Sequence[Entry], cutter: Cutter) -> str:
    """A name that changes with what is in a chunk and how it is cut."""
    content = json.dumps([asdict(cutter), *(asdict(entry) for entry in entries)])
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def chunked(entries: Iterator[Entry], shard: str) -> Iterator[tuple[int, list[Entry]]]:
    """The numbered chunks of a listing that belong to a shard such as ``"2/3"``."""
    which, count = (int(part) for part in shard.split("/"))
    for number in itertools.count():
        chunk = list(itertools.islice(entries, min(CHUNK, 4 << number // 8)))  # small ones first: all cores begin
        if not chunk:
            return
        if number % count == which - 1:
            yield number, chunk


def cut_more(tasks: Sequence[tuple[Entry, str, int, int]], cutter: Cutter, work: Path) -> Path:
    """Cut further crops: of each entry with its digest those from one number up to another, in one file.

    Raises ``ConfigError`` where a picture is not what it was when it was read.
    """
    name = hashlib.sha256(json.dumps([asdict(cutter), *((asdict(t[0]), *t[1:]) for t in tasks)]).encode()).hexdigest()
    path = work / "chunks" / f"more-{name[:24]}.bin"
    if not path.exists():
        crops = []
        for entry, sha256, start, stop in tasks:
            pixels = _read_again(entry, sha256, work, cutter.at_least)
            crops += [cutter.cut(pixels, sha256, number) for number in range(start, stop)]
        write_file(path, b"".join(crop.tobytes() for crop in crops))
    return path


def _read_again(entry: Entry, sha256: str, work: Path, at_least: int) -> Bytes:
    try:
        content = read_entry(entry, work)
    except VanishedError:
        content = b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ConfigError(f"data_source: {entry.name} changed or vanished while it was prepared; run again")
    return decode_photograph(content, at_least=at_least).pixels


def run_all(tasks: Iterable[tuple[K, Callable[[], T]]], workers: int) -> Iterator[tuple[K, T]]:
    """Run tasks on ``workers`` processes, a bounded number at a time; yields each key with its result as they come.

    Raises ``WorkersDied`` where a process is killed.
    """
    if workers == 1:
        for key, task in tasks:
            yield key, task()
        return
    pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(os.getpid(),))
    pending: dict[Future[T], K] = {}
    unsent: list[K] = []
    try:
        for key, task in tasks:
            unsent = [key]
            pending[pool.submit(task)] = key
            unsent = []
            if len(pending) >= 2 * workers:
                yield from _finished(pending)
        while pending:
            yield from _finished(pending)
    except BrokenProcessPool:
        raise WorkersDied([*pending.values(), *unsent]) from None
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _finished(pending: dict[Future[T], K]) -> Iterator[tuple[K, T]]:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        result = future.result()
        yield pending.pop(future), result


def _start_worker(parent: int) -> None:
    """Stop signals end a worker at once, and the end of its parent does, too, were it killed."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _read_chunk(entries: list[Entry], cutter: Cutter, work: Path) -> Path:
    known = all(entry.stamp for entry in entries)
    stem = work / "chunks" / (chunk_name(entries, cutter) + ("" if known else secrets.token_hex(8)))
    if not stem.with_suffix(".jsonl").exists():
        rows: list[dict[str, Any]] = []
        crops: list[bytes] = []
        for entry in entries:
            row, crop = _read_one(entry, cutter, work)
            if crop is not None:
                row["crop"] = len(crops)
                crops.append(crop.tobytes())
            if row:
                rows.append(row)
        if any(row.get("passing") for row in rows):
            stem = stem.with_name(stem.name + secrets.token_hex(8))  # such a chunk is read again next time
        write_file(stem.with_suffix(".bin"), b"".join(crops))
        write_file(stem.with_suffix(".jsonl"), "".join(json.dumps(row) + "\n" for row in rows))
    return stem


def _read_one(entry: Entry, cutter: Cutter, work: Path) -> tuple[dict[str, Any], Bytes | None]:
    """The row of an entry, and its first crop; an empty row for what turns out to be no picture's name."""
    row: dict[str, Any] = asdict(entry)
    if entry.problem:
        return row, None
    try:
        content = read_entry(entry, work)
        photo = decode_photograph(content, at_least=cutter.at_least)
        _refuse_useless(photo)
    except NoMemoryError:
        raise ConfigError(
            f"memory ran out at {entry.name}; give the step more, or set KINTSUGI_WORKERS=1, and run again: "
            "what was read is kept"
        ) from None
    except UnknownFormatError as error:
        return (row | {"problem": str(error)}, None) if entry.certain else ({}, None)
    except VanishedError as error:
        return row | {"problem": str(error), "passing": True}, None
    except ImageError as error:
        return row | {"problem": str(error)}, None
    sha256 = hashlib.sha256(content).hexdigest()
    row |= {"sha256": sha256, "width": photo.width, "height": photo.height, "notes": list(photo.notes)}
    return row | _measure(photo.pixels), cutter.cut(photo.pixels, sha256, 0)


def _refuse_useless(photo: Photograph) -> None:
    if min(photo.width, photo.height) < MIN_SIDE:
        raise ImageError(f"the picture is {photo.width}x{photo.height} pixels, too small to learn from")
    if max(ImageStat.Stat(Image.fromarray(photo.pixels)).stddev) < _FLAT:
        raise ImageError("the picture is blank")


def _measure(pixels: Bytes) -> dict[str, Any]:
    """What the catalogue knows of a picture: perceptual hashes, plain and mirrored, colour, contrast, sharpness.

    Sharpness is the variance of the Laplacian of the middle (Pech-Pacheco et al., "Diatom autofocusing in
    brightfield microscopy", 2000), luma in [0, 1]; colours and contrast are of a 32x32 copy, in [0, 1].
    """
    import imagehash

    picture = Image.fromarray(pixels)
    grey = picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS)  # what phash makes of it first
    small = np.asarray(picture.resize((32, 32), Image.Resampling.BOX), np.float32) / 255
    top, left = (max(0, (side - _SHARPNESS_SIDE) // 2) for side in pixels.shape[:2])
    middle = pixels[top : top + _SHARPNESS_SIDE, left : left + _SHARPNESS_SIDE].astype(np.float32)
    luma = middle @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    ring = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    red, green, blue = (round(float(value), 4) for value in small.mean((0, 1)))
    return {
        "phash": str(imagehash.phash(grey)),
        "mirrored": str(imagehash.phash(ImageOps.mirror(grey))),
        "red": red,
        "green": green,
        "blue": blue,
        "contrast": round(float(small.mean(2).std()), 4),
        "sharpness": round(float((ring - 4 * luma[1:-1, 1:-1]).var()), 6),
    }
