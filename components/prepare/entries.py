"""One file of a source that should be a picture, and how its bytes are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from components.config import ConfigError

ALL_SPLITS = "test,val,train"
MAX_FILE_BYTES = 256 << 20
SPOOL = "@spool"
"""Where an entry lies that was copied into the work folder; the folder differs from machine to machine."""

_READ = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".ppm", ".pgm"}
_SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_FOREIGN = {".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga", ".ico", ".eps", ".raw", ".dng", ".cr2", ".nef"}


class VanishedError(OSError):
    """A file was listed, and is gone or cannot be opened now."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that should be a picture.

    ``where`` is a path, a URI or ``SPOOL``; ``offset`` and ``size`` are bytes (``offset`` -1: all of it).
    ``stamp`` changes when the content does. ``splits`` are those that the picture may stand in. An
    entry with a ``problem`` was refused before it was read.
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
    path = work / "spool" if entry.where == SPOOL else Path(entry.where)
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
    index, spool = work / "entries.jsonl", work / "spool"
    if not index.exists() or _first_line(index) != stamp:
        draft, listing = work / "spool.part", work / "entries.part"
        with listing.open("w") as file:
            file.write(json.dumps(stamp) + "\n")
            for entry in make(draft):
                file.write(json.dumps(asdict(entry)) + "\n")
        index.unlink(missing_ok=True)
        if draft.exists():
            draft.replace(spool)
        listing.replace(index)

    def entries() -> Iterator[Entry]:
        with index.open() as file:
            next(file)
            for line in file:
                yield Entry(**json.loads(line))

    return entries


def _first_line(path: Path) -> str:
    with path.open() as file:
        try:
            return str(json.loads(file.readline()))
        except json.JSONDecodeError:
            return ""


def stamp_of(path: Path) -> str:
    """Size and time of a file: what tells one version of it from the next."""
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"data_source: {path} cannot be read ({error.strerror})") from None
    return f"{found.st_size}-{found.st_mtime_ns}"
