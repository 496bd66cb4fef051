"""Archives from strangers: tar, tar.gz, tar.bz2, tar.xz and zip, read without unpacking a single name.

No member is ever written under its own name. The pictures of a packed archive go one after the other
into one spool file; a plain tar is read where it lies. Links are not followed, and counts, sizes and
the rate of unpacking are capped while the bytes stream.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from components.config import ConfigError
from components.prepare.entries import MAX_FILE_BYTES, SPOOL, Entry, class_of, clean_name, may_be_picture, stamp_of

SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip")
_BLOCK = 1 << 20
_MAX_HEADERS = 1 << 20  # bytes that the headers of one member of a tar may take
_MAX_DIRECTORY = 256 << 20  # bytes that a zip's table of contents may take: two million names
_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_ZIPPED = (b"PK\x03\x04", b"PK\x05\x06")  # a zip with members, and one without
_SPECIAL = "a link or a special file, which is not followed"


@dataclass(frozen=True)
class Limits:
    """What an archive may hold."""

    members: int = 5_000_000
    total_bytes: int = 4 << 40
    ratio: float = 200.0  # unpacked to packed bytes, once `floor_bytes` are unpacked
    floor_bytes: int = 64 << 20


LIMITS = Limits()


def is_archive(path: Path) -> bool:
    """Whether a file is an archive that is read, by its content. Raises ``ConfigError`` where it cannot be read."""
    head = _head(path)
    if head[:2] in _PACKED or head[:4] in _ZIPPED or head == bytes(tarfile.BLOCKSIZE):
        return True
    with suppress(tarfile.TarError):
        return bool(tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape"))
    return False


def read_archive(
    path: Path, spool: Path, limits: Limits = LIMITS, *, wanted: Callable[[str], bool] = may_be_picture
) -> Iterator[Entry]:
    """Yield the members of an archive whose names are ``wanted``; those of a packed archive are copied into ``spool``.

    Members whose name leaves the archive, links that pose as pictures, and encrypted or broken members
    of a zip come with a ``problem``. Raises ``ConfigError`` for an archive that is damaged or over a limit.
    """
    with sentences(path):
        if _head(path)[:4] in _ZIPPED:
            yield from _read_zip(path, spool, limits, wanted)
        else:
            yield from _read_tar(path, spool, limits, wanted)


def first_names(path: Path, count: int) -> list[str]:
    """The names of an archive's first members, ``[]`` where it cannot be read."""
    try:
        with sentences(path):
            if _head(path)[:4] in _ZIPPED:
                with _Zipped(path.open("rb", buffering=0)) as file, zipfile.ZipFile(file) as archive:
                    names = archive.namelist()[:count]
            else:
                with _open_tape(path, LIMITS) as tape:
                    names = [member.name for member in itertools.islice(_members(tape), count)]
    except ConfigError:
        return []
    return [clean_name(name) for name in names]


@contextmanager
def sentences(path: Path) -> Iterator[None]:
    """Whatever the readers of archives raise at bytes that are none, as one sentence. They share no class of errors."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"data_source: {path} is damaged ({text}); get or pack it again") from None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise ConfigError(f"data_source: {path} cannot be read ({error.strerror}); give an archive that can") from None


def _read_tar(path: Path, spool: Path, limits: Limits, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    version = stamp_of(path)
    with _open_tape(path, limits) as tape, spool.open("wb", buffering=0) as target:
        for member in _members(tape):
            if member.isdir() or not wanted(_clean(member.name)):
                continue
            special = not member.isreg() or member.issparse()
            problem = _name_problem(member.name) or (_SPECIAL if special else "")
            where, offset = (SPOOL, target.tell()) if tape.packed else (str(path), member.offset_data)
            entry = _entry(member.name, where, offset, member.size, version, problem)
            if tape.packed and not entry.problem:
                entry = replace(entry, stamp=f"{_copy(tape.take, target, member.size)}-{member.size}")
            yield entry


def _members(tape: _Tape) -> Iterator[tarfile.TarInfo]:
    """Yield a tar's members up to its end. Raises ``ConfigError`` where it breaks off before."""
    tar: Any = tarfile.TarFile(fileobj=tape, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
    number = 0
    while member := tar.next():
        if member.size < 0:
            raise tarfile.ReadError("a member has a negative size")
        number += 1
        _check(number, tape.tell(), tape.path, tape.limits)
        yield member
        tape.headers = 0
        tar.members.clear()  # tarfile keeps every header otherwise
        tar.pax_headers.clear()  # and whatever is said for all members
    if tape.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes a header that it cannot read for the end
        raise ConfigError(f"data_source: {tape.path} breaks off after {number} files; get or pack it again")
    _check(number, tape.tell(), tape.path, tape.limits)
    while tape.take(_BLOCK):  # the checksum of what was unpacked comes last
        pass


def _read_zip(path: Path, spool: Path, limits: Limits, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    size, unpacked = path.stat().st_size, 0
    with (
        _Zipped(path.open("rb", buffering=0)) as file,
        zipfile.ZipFile(file) as archive,
        spool.open("wb", buffering=0) as target,
    ):
        members = archive.infolist()
        _check(len(members), sum(info.file_size for info in members), path, limits)
        if sum(info.compress_size for info in members) > size:
            raise _bomb(path, limits)  # they overlap
        for info in members:
            if info.filename.endswith("/") or not wanted(_clean(info.filename)):
                continue
            stamp, problem = f"{info.CRC}-{info.file_size}", _zip_problem(info, limits)
            entry = _entry(info.filename, SPOOL, target.tell(), info.file_size, stamp, problem)
            if not entry.problem:
                unpacked += info.file_size
                if unpacked > max(limits.floor_bytes, limits.ratio * size):
                    raise _bomb(path, limits)
                entry = _unzip(archive, info, entry, target)
            yield entry


def _zip_problem(info: zipfile.ZipInfo, limits: Limits) -> str:
    if info.flag_bits & 1:
        return "encrypted"
    if info.external_attr >> 28 not in (0, 8):  # neither unknown nor a regular file
        return _SPECIAL
    if info.file_size > max(limits.floor_bytes, limits.ratio * info.compress_size):
        return f"unpacks to more than {limits.ratio:g} times its size"
    return _name_problem(info.orig_filename)


def _unzip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Entry, target: IO[bytes]) -> Entry:
    """Copy a member to the end of the spool; the entry gets a problem, and the spool nothing, where that fails."""
    try:
        with archive.open(info) as content:
            _copy(content.read, target, info.file_size)
    except ConfigError:
        raise
    except Exception as error:  # they share no class
        target.seek(entry.offset)
        target.truncate()
        return replace(entry, offset=0, size=0, stamp="", problem=f"it cannot be unpacked ({error})")
    return entry


def _entry(name: str, where: str, offset: int, size: int, stamp: str, problem: str) -> Entry:
    clean = _clean(name)
    if not problem and size > MAX_FILE_BYTES:
        problem = f"the file has more than {MAX_FILE_BYTES >> 20} MB"
    return Entry(clean, where, offset, size, stamp, class_of(clean), problem=problem)


def _clean(name: str) -> str:
    """A name to be shown and to tell the class by: of text, with slashes, below the archive."""
    parts = (part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))
    return clean_name("/".join(parts))


def _name_problem(name: str) -> str:
    if not _clean(name):
        return "it has no name"
    if any(character < " " or character == "\x7f" for character in name):
        return "its name has control characters"
    path = name.replace("\\", "/")
    leaves = path.startswith("/") or ".." in path.split("/") or PureWindowsPath(name).drive
    return "its name leaves the archive" if leaves else ""


def _copy(read: Callable[[int], bytes], target: IO[bytes], size: int) -> int:
    """Copy so many bytes; returns their CRC. Raises ``EOFError``, and ``ConfigError`` where there is no room."""
    left, crc = size, 0
    while left and (block := read(min(left, _BLOCK))):
        left, crc = left - len(block), zlib.crc32(block, crc)
        try:
            while block:
                block = block[target.write(block) :]  # a disk that fills up takes a part of it
        except OSError as error:
            raise ConfigError(f"{target.name} cannot be written ({error.strerror}); make room and run again") from None
    if left:
        raise EOFError("it is cut off")
    return crc


def _check(members: int, total: int, path: Path, limits: Limits) -> None:
    if not members:
        raise ConfigError(f"data_source: {path} holds nothing; give an archive of pictures")
    if members > limits.members:
        raise ConfigError(f"data_source: {path} holds more than {limits.members} files; split it")
    if total > limits.total_bytes:
        raise ConfigError(f"data_source: {path} unpacks to more than {limits.total_bytes >> 30} GB; split it")


def _bomb(path: Path, limits: Limits) -> ConfigError:
    return ConfigError(
        f"data_source: {path} unpacks to more than {limits.ratio:g} times its size, as archives do "
        "that are made to fill disks; unpack it yourself and give the folder if you trust it"
    )


class _Zipped(io.BufferedReader):
    """The file of a zip, whose table of contents zipfile would read whole, however large it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size and size > _MAX_DIRECTORY:
            raise ConfigError(f"data_source: {self.name} holds too many files for a zip; split it, or pack it as tar")
        return super().read(size)


@contextmanager
def _open_tape(path: Path, limits: Limits) -> Iterator[_Tape]:
    with path.open("rb") as file:
        unpack = _PACKED.get(file.read(2))
        file.seek(0)
        with unpack(file) if unpack else nullcontext(file) as stream:
            yield _Tape(stream, path, limits, file if unpack else None)


class _Tape:
    """A tar's bytes, forwards only; it stops at headers too large to keep, and when it unpacks too much."""

    def __init__(self, stream: Any, path: Path, limits: Limits, packed: IO[bytes] | None) -> None:
        self.path, self.limits = path, limits
        self.headers, self.last = 0, b""
        self._stream, self.packed, self._at = stream, packed, 0

    def read(self, size: int) -> bytes:
        """A piece of a header; tarfile reads nothing else here, and keeps it."""
        self.headers += size
        if self.headers > _MAX_HEADERS:
            raise ConfigError(f"data_source: {self.path} has headers larger than any picture needs; pack it again")
        self.last = self.take(size)
        return self.last

    def take(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        block: bytes = self._stream.read(size)
        self._at += len(block)
        if self.packed and self._at > max(self.limits.floor_bytes, self.limits.ratio * self.packed.tell()):
            raise _bomb(self.path, self.limits)
        return block

    def seek(self, offset: int) -> None:
        """Go on to an offset, at most to the end; tarfile would follow one backwards for ever."""
        if offset < self._at:
            raise tarfile.ReadError("a header points backwards")
        if not self.packed:
            self._at = self._stream.seek(offset)
        while self._at < offset and self.take(min(_BLOCK, offset - self._at)):
            pass

    def tell(self) -> int:
        return self._at
