"""The folder of a journal, on disk: appended to at its end, taken from at its front.

It holds ``journal.jsonl`` (one entry a line), ``files/<number>/`` (what belongs to an entry) and
``position.json`` (how far delivery got). Memory holds no more than a few bytes for each id.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.progress import say

GROUPED = "metrics"  # the kind whose consecutive entries are taken together
_LOG, _POSITION, _FILES = "journal.jsonl", "position.json", "files"
_MAX_GROUP = 100  # entries
_RESERVE_BYTES = 256 << 20  # of disk, which pictures leave to checkpoints
_WRITER_PATIENCE, _POLL_SECONDS = 1.0, 0.1


class JournalBusy(ValueError):
    """Another process writes to a journal, or delivers it."""


@dataclass(frozen=True)
class Entry:
    """One line of a journal."""

    number: int
    time: int  # milliseconds since 1970, when it was appended
    id: str  # "" for an entry that may come twice
    kind: str
    payload: dict[str, Any]
    files: Path | None  # the folder of what belongs to it; gone once it was delivered
    end: int = 0  # offset in the journal behind its line, bytes


Write = Callable[[Path], object]


class Spool:
    """The folder of a journal: entries are appended at its end and taken from its front."""

    def __init__(self, folder: Path, *, writing: bool) -> None:
        """Open a journal, to append to it (``writing``) or only to deliver what waits in it.

        Raises ``JournalBusy`` when another process writes to it.
        """
        self.folder = folder
        if writing:
            folder.mkdir(parents=True, exist_ok=True)
        self._writer, self._sender = _Lock(folder / "writer.lock"), _Lock(folder / "sender.lock")
        if not self._writer.acquire(_WRITER_PATIENCE if writing else 0.0, shared=not writing):
            raise JournalBusy(f"another process writes to the journal {folder}; wait for it to end")
        self.lost = 0  # entries that the disk did not take
        self._ids: set[int] = set()
        self._number = self._end = 0
        for entry in _entries(folder):
            self._number, self._end = entry.number, entry.end
            self._ids |= {_key(entry.id)} if entry.id else set()
        self._taken, self._offset = self._read_position()
        self._log = -1
        if writing:
            self._log = os.open(folder / _LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.ftruncate(self._log, self._end)  # whoever died while appending left half a line
        else:
            self._writer.release()

    def append(self, id: str, kind: str, payload: dict[str, Any], write: Write | None, expendable: bool) -> bool:
        """Write one entry; False where its id is there already or the disk does not take it."""
        key = _key(id)
        if id and key in self._ids:
            return False
        line = json.dumps([self._number + 1, int(time.time() * 1000), id, kind, payload, write is not None])
        try:
            if write:
                self._attach(write, expendable)
            self._write(line.encode() + b"\n")
        except OSError as error:
            self._lose(error)
            return False
        self._number += 1
        if id:
            self._ids.add(key)
        return True

    def take(self) -> list[Entry]:
        """The next entries that wait, several only where all are metrics; an empty list when none do."""
        group: list[Entry] = []
        for entry in _entries(self.folder, self._offset, self._end):
            if group and entry.kind != GROUPED:
                break
            group.append(entry)
            if entry.kind != GROUPED or len(group) == _MAX_GROUP:
                break
        return group

    def advance(self, group: list[Entry]) -> None:
        """Remember that these entries were delivered, and drop their files."""
        self._taken, self._offset = group[-1].number, group[-1].end
        partial = self.folder / f".{_POSITION}"
        try:
            partial.write_text(json.dumps({"number": self._taken, "offset": self._offset}))
            os.replace(partial, self.folder / _POSITION)
        except OSError:
            return  # they will be sent again, which changes nothing
        for entry in group:
            if entry.files:
                shutil.rmtree(entry.files, ignore_errors=True)

    @property
    def waiting(self) -> int:
        """Number of entries that were not delivered yet."""
        return max(1, self._number - self._taken) if self._offset < self._end else 0

    def claim(self, seconds: float) -> bool:
        """Become the only one that delivers; False where another does so for longer than ``seconds``."""
        if self._sender.held:
            return True
        if not self._sender.acquire(seconds):
            return False
        self._taken, self._offset = self._read_position()
        return True

    def release(self) -> None:
        """Let others deliver."""
        self._sender.release()

    def close(self) -> None:
        """Let others write."""
        os.close(self._log)
        self._writer.release()

    def _read_position(self) -> tuple[int, int]:
        try:
            position = json.loads((self.folder / _POSITION).read_text())
            return min(position["number"], self._number), min(position["offset"], self._end)
        except (OSError, ValueError, KeyError):
            return 0, 0  # what was delivered is sent again, which changes nothing

    def _attach(self, write: Write, expendable: bool) -> None:
        disk = shutil.disk_usage(self.folder)
        if expendable and disk.free < min(_RESERVE_BYTES, disk.total // 20):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        files = self.folder / _FILES / str(self._number + 1)
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir(parents=True)
        try:
            write(files)
        except BaseException:
            shutil.rmtree(files, ignore_errors=True)
            raise

    def _write(self, line: bytes) -> None:
        start = os.fstat(self._log).st_size  # not counted: an interrupt may have come between writing and counting
        if os.write(self._log, line) != len(line):
            os.ftruncate(self._log, start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._end = start + len(line)

    def _lose(self, error: OSError) -> None:
        if not self.lost:
            say(f"the journal {self.folder} cannot be written ({error}); training goes on and logs what it can")
        self.lost += 1


def last_entry(folder: Path) -> Entry | None:
    """The newest entry of a journal, ``None`` for an empty one."""
    newest = None
    for newest in _entries(folder):  # noqa: B007
        pass
    return newest


def remove(folder: Path) -> None:
    """Remove a journal, unless somebody has begun to write to it."""
    lock = _Lock(folder / "writer.lock")
    if lock.acquire(0.0):
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _entries(folder: Path, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
    """The whole lines of a journal between two offsets; what a disk that lost power left is passed over."""
    if not (folder / _LOG).exists():
        return
    with open(folder / _LOG, "rb") as log:
        log.seek(start)
        while (stop is None or start < stop) and (line := log.readline()).endswith(b"\n"):
            start += len(line)
            if entry := _parse(line, folder, start):
                yield entry


def _parse(line: bytes, folder: Path, end: int) -> Entry | None:
    try:
        number, written, id, kind, payload, attached = json.loads(line)
    except (ValueError, TypeError):
        return None
    return Entry(number, written, id, kind, payload, folder / _FILES / str(number) if attached else None, end)


class _Lock:
    """A lock that ends with the process that holds it. Where a disk knows no locks, it always succeeds."""

    def __init__(self, path: Path) -> None:
        self._path, self._handle = path, -1

    @property
    def held(self) -> bool:
        return self._handle >= 0

    def acquire(self, seconds: float, *, shared: bool = False) -> bool:
        """Whether it could be had within ``seconds``; a shared one only keeps those out who want it alone."""
        deadline = time.monotonic() + seconds
        while not (taken := self.held or self._try(shared)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return taken

    def release(self) -> None:
        if self.held:
            os.close(self._handle)
            self._handle = -1

    def _try(self, shared: bool) -> bool:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:
            pass
        self._handle = handle
        return True


def _key(id: str) -> int:
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest())
