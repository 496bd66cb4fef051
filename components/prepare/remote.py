"""Sources in object stores and on the web, through fsspec."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from components.config import ConfigError
from components.prepare.entries import MAX_FILE_BYTES, Entry, VanishedError, class_of, may_be_picture
from components.progress import Bar, say

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # protocol to extra of this distribution
_BLOCK = 1 << 20
_TRIES = 4


def walk(uri: str) -> Iterator[Entry]:
    """Every file below a URI that may be a picture, in the order of names."""
    system, root = _open(uri)
    with _sentences(uri):
        found = system.find(root, detail=True)
        if not found:
            raise ConfigError(f"data_source: {shown(uri)} holds nothing, or does not exist; look at the address")
    for path in sorted(found):
        name = path[len(root) :].lstrip("/") if path.startswith(root) else path.rsplit("/", 1)[-1]
        name = unquote(name) if root.startswith("http") else name
        if may_be_picture(name):
            facts = found[path]
            size, stamp = facts.get("size"), facts.get("ETag") or facts.get("etag") or facts.get("mtime") or ""
            where = system.unstrip_protocol(path)
            yield Entry(name, where, size=-1 if size is None else size, stamp=str(stamp), class_name=class_of(name))


def read(uri: str) -> bytes:
    """All bytes of one object; tried again when the store stumbles.

    Raises ``VanishedError`` when it is not there any more, ``ConfigError`` when the store does not answer.
    """
    system, path = _open(uri)
    for attempt in range(_TRIES):
        try:
            with _sentences(uri), system.open(path, "rb") as file:
                content: bytes = file.read(MAX_FILE_BYTES)
                return content
        except FileNotFoundError:
            raise VanishedError("the file is gone since it was listed") from None
        except ConfigError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(0.5 * 2**attempt)
    raise AssertionError("unreachable")


def exists(uri: str) -> bool:
    """Whether there is such an object."""
    system, path = _open(uri)
    with _sentences(uri):
        return bool(system.exists(path))


def stamp(uri: str) -> str:
    """What tells one version of an object from the next: its size, and its tag or time where it has one."""
    system, path = _open(uri)
    try:
        with _sentences(uri):
            facts = system.info(path)
    except FileNotFoundError:
        raise ConfigError(f"data_source: {shown(uri)} does not exist; look at the address") from None
    return "-".join(str(facts.get(key, "")) for key in ("size", "ETag", "etag", "mtime", "LastModified"))


def fetch(uri: str, target: Path) -> None:
    """Download one object, where it is not there yet; an interrupted download goes on where it stopped.

    Servers that know no ranges are read from the start. Raises ``ConfigError`` where it cannot be
    reached or breaks off.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _sentences(uri):
        say(f"downloading {shown(uri)}")
        try:
            _download(uri, part, ranges=True)
        except ValueError as error:
            if "range requests" not in str(error):  # what fsspec says of servers that know none
                raise
            _download(uri, part, ranges=False)
    part.replace(target)


def _download(uri: str, part: Path, *, ranges: bool) -> None:
    system, path = _open(uri)
    total = int(system.info(path).get("size") or 0)
    done = part.stat().st_size if ranges and part.exists() and part.stat().st_size <= total else 0
    with (
        system.open(path, "rb", block_size=_BLOCK if ranges else 0) as source,
        part.open("ab" if done else "wb") as file,
        Bar("download, kB", total // 1024) as bar,
    ):
        if done:
            source.seek(done)
            bar.advance(done // 1024)
        while block := source.read(_BLOCK):
            file.write(block)
            bar.advance(len(block) // 1024)
    if part.stat().st_size < total:
        raise ConnectionError(f"it broke off after {part.stat().st_size} of {total} bytes")


def shown(place: str) -> str:
    """A source as it may be shown and kept: without what may be a password or a token."""
    if "://" not in place:
        return place
    parts = urlsplit(place)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "..." if parts.query else "", ""))


def _open(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path in it. Raises ``ConfigError`` naming the driver that is missing."""
    protocol = uri.split("://")[0]
    try:
        system, path = _system(uri)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        cure = f"pip install 'kintsugi[{extra}]'" if extra else str(error)
        raise ConfigError(f"data_source: {protocol}:// needs a driver that is not installed: {cure}") from None
    except Exception as error:  # drivers share no class of errors
        raise ConfigError(f"data_source: {shown(uri)} cannot be opened ({_text(error)}); known are paths, file://, "
                          "gs://, s3:// and http(s)://, and what else fsspec has a driver for") from None  # fmt: skip
    return system, path


def _system(uri: str) -> tuple[Any, str]:
    """fsspec keeps file systems itself, one a process; those of the web wait for each answer, not for all of it."""
    import fsspec

    if not uri.startswith("http"):
        found: tuple[Any, str] = fsspec.core.url_to_fs(uri)
        return found
    import aiohttp

    patience = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return fsspec.filesystem(uri.split("://")[0], client_kwargs={"timeout": patience}), uri


def _text(error: BaseException) -> str:
    status = getattr(error.__cause__, "status", None)
    told = f"HTTP {status}" if status else str(error.__cause__ or error)
    return " ".join(told.split())[:300] or type(error).__name__


@contextmanager
def _sentences(uri: str) -> Iterator[None]:
    """Whatever a driver raises, as one sentence. Drivers share no class of errors."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) and not _unreachable(error):
            raise
        raise ConfigError(f"data_source: {shown(uri)} cannot be reached ({_text(error)}); look at the address, the "
                          "network and the credentials, and run again to go on") from None  # fmt: skip


def _unreachable(error: FileNotFoundError) -> bool:
    """Whether fsspec calls a web server missing that answered with an error, or not at all."""
    import aiohttp

    cause = error.__cause__
    return isinstance(cause, aiohttp.ClientError) and getattr(cause, "status", None) not in (404, 410)
