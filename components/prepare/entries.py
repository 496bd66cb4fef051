"""One file of a source that should be a picture, and how its bytes are read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from components.config import ConfigError

ALL_SPLITS = "test,val,train"
MAX_FILE_BYTES = 256 << 20
SPOOL = "@spool"
"""Where an entry lies that was copied into the spool. What begins with @ is a file of the work folder, which
differs from machine to machine."""

_READ = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".ppm", ".pgm", ".pnm",
}  # fmt: skip
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_FOREIGN = {
    ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga", ".ico", ".eps", ".raw", ".dng", ".cr2", ".nef", ".arw",
    ".raf", ".orf", ".rw2",
}  # fmt: skip


class VanishedError(OSError):
    """A file was listed, and is gone or cannot be opened now."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that should be a picture.

    ``where`` is a path, a URI, or a file of the work folder behind an @; ``offset`` and ``size`` are bytes
    (``offset`` -1: all of it). ``stamp`` changes when the content does, ``""`` where nobody knows.
    ``splits`` are those that the picture may stand in. An entry with a ``problem`` was refused before it
    was read.
    """

    name: str
    where: str
    offset: int = -1
    size: int = -1
    stamp: str = ""
    class_name: str = ""
    splits: str = ALL_SPLITS
    problem: str = ""

    @property
    def certain(self) -> bool:
        """Whether the name says that this is a picture; what has no suffix may be anything."""
        return bool(PurePosixPath(self.name).suffix)


def may_be_picture(name: str) -> bool:
    """Whether a file is looked at: it has a picture's suffix, or none, and nothing in its path is hidden."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not hidden and path.suffix.lower() in {*_READ, *_FOREIGN, ""}


def class_of(name: str) -> str:
    """The class of a picture: the name of the nearest folder that is not one of a split, ``""`` where there is none."""
    folders = PurePosixPath(name).parent.parts
    return next((folder for folder in reversed(folders) if folder.lower() not in _SPLIT_FOLDERS), "")


def read_entry(entry: Entry, work: Path) -> bytes:
    """The bytes of an entry. Raises ``VanishedError``, or ``ConfigError`` where a store does not answer."""
    if entry.size > MAX_FILE_BYTES:
        raise VanishedError(f"the file has more than {MAX_FILE_BYTES >> 20} MB")
    if "://" in entry.where:
        from components.prepare import remote

        return remote.read(entry.where)
    path = work / entry.where[1:] if entry.where.startswith("@") else Path(entry.where)
    try:
        with path.open("rb") as file:
            if entry.offset < 0:
                return file.read(MAX_FILE_BYTES)
            file.seek(entry.offset)
            return file.read(entry.size)
    except OSError as error:
        raise VanishedError(f"the file cannot be read ({error.strerror})") from None


def listed(work: Path, stamp: str, make: Callable[[Path], Iterable[Entry]]) -> Callable[[], Iterator[Entry]]:
    """Keep a listing in the work folder: made once per ``stamp``, then read from there, an entry at a time.

    ``make`` gets the path of a spool that it may write, and yields entries.
    """
    version = short_digest(stamp)
    index, spool = work / f"entries-{version}.jsonl", work / f"spool-{version}"
    if not index.exists():
        draft, listing = spool.with_suffix(".part"), index.with_suffix(".part")
        with listing.open("w") as file:
            for entry in make(draft):
                where = f"@{spool.name}" if entry.where == SPOOL else entry.where.replace(f"{work}/", "@")
                file.write(json.dumps(asdict(replace(entry, where=where))) + "\n")
        if draft.exists():
            draft.replace(spool)
        listing.replace(index)

    def entries() -> Iterator[Entry]:
        with index.open() as file:
            for line in file:
                yield Entry(**json.loads(line))

    return entries


def clean_name(name: str) -> str:
    """A name to be shown: what is no text in it, control characters and foreign bytes, replaced."""
    return _NO_TEXT.sub("\ufffd", name)


def stamp_of(path: Path) -> str:
    """Size and time of a file: what tells one version of it from the next."""
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"data_source: {path} cannot be read ({error.strerror})") from None
    return version_of(found)


def version_of(found: os.stat_result) -> str:
    """The stamp of a file whose state is known."""
    return f"{found.st_size}-{found.st_mtime_ns}"


def short_digest(text: str) -> str:
    """A name for a file of the work folder that changes with ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
