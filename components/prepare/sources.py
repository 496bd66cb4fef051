"""Where pictures come from: the installed photographs, CIFAR-10, a folder, an archive, or a URI of these."""

from __future__ import annotations

import importlib.util
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlparse

from components.config import ConfigError, DataConfig, locate, split_names
from components.prepare import archives, cifar, remote
from components.prepare.entries import (
    Entry,
    class_of,
    clean_name,
    listed,
    may_be_picture,
    short_digest,
    stamp_of,
    version_of,
)

_SKIMAGE = {
    "train": ("astronaut.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg", "hubble_deep_field.jpg",
              "camera.png", "moon.png", "coins.png", "ihc.png", "brick.png", "gravel.png"),
    "val": ("coffee.png",),
    "test": ("chelsea.png", "grass.png"),
}  # fmt: skip
_SKLEARN = {"train": ("flower.jpg",), "val": (), "test": ("china.jpg",)}

_CIFAR_CLASSES = ("cat", "dog")  # the paper's
_LICENCE_NAMES = ("license", "licence", "copying", "notice", "readme", "attribution", "credits")
_LICENCES = {
    "sample": "The photographs ship with scikit-image and scikit-learn, under the licences that those name; most are "
    "in the public domain or CC0, and none leaves this dataset by itself.",
    "cifar10": "CIFAR-10 (Krizhevsky, 2009) is given for research and names no licence; its pictures were collected "
    "from the web and their owners were not asked.",
}
_UNKNOWN_LICENCE = (
    "Nothing in the source says under which licence its pictures stand; find out before you share a model."
)


@dataclass(frozen=True)
class Source:
    """A collection of pictures: ``everything()`` lists it anew, one entry at a time, in the same order each time.

    ``classes`` are those asked for; none: all.
    """

    everything: Callable[[], Iterator[Entry]]
    licence: str
    classes: tuple[str, ...] = ()

    def entries(self) -> Iterator[Entry]:
        """The pictures of the classes asked for."""
        return (entry for entry in self.everything() if self.wants(entry))

    def wants(self, entry: Entry) -> bool:
        """Whether a picture is of a class asked for."""
        return not self.classes or entry.class_name in self.classes


def open_source(config: DataConfig, work: Path, downloads: Path) -> Source:
    """Open ``config.source``; what has to be downloaded or unpacked for it goes into ``work``.

    Raises ``ConfigError`` where there is nothing to read, and says what to do.
    """
    from filelock import FileLock

    work.mkdir(parents=True, exist_ok=True)
    classes = () if config.classes == "auto" else split_names(config.classes)
    with FileLock(work / "source.lock"):  # others may unpack the same
        # masks and what runs write may lie among the pictures
        skipped = (os.path.realpath(downloads.parent), os.path.realpath(config.mask_source or downloads))
        source = _open(config.source, classes, work, downloads, skipped)
    return source if classes in ((), ("all",)) else replace(source, classes=classes)


def work_folder(config: DataConfig, state: Path) -> Path:
    """A folder that stays the same from run to run while the source and what is cut from it do."""
    parts = (config.source, config.classes, config.image_size, config.crop, config.seed, config.code_version)
    return state / "prepare" / short_digest(repr(parts))


def _open(place: str, classes: tuple[str, ...], work: Path, downloads: Path, skipped: tuple[str, ...]) -> Source:
    if place == "sample":
        return Source(lambda: iter(_sample()), _LICENCES["sample"])
    if place == "cifar10":
        archive = cifar.download(downloads)
        return _cifar_archive(archive, classes, work, stamp_of(archive))
    if "://" in place and not place.startswith("file://"):
        return _remote(place, classes, work)
    if place.startswith("file://") and not place.startswith("file:///"):
        raise ConfigError(f"data_source: {place} names no file or folder; write file:// and an absolute path")
    path = Path(locate("data_source", unquote(place.removeprefix("file://")) if "://" in place else place))
    if path.is_file():
        return _archive(path, classes, work, f"{path} {stamp_of(path)}")
    if (path / "batches.meta").exists():
        stamps = sorted((batch.name, stamp_of(batch)) for batch in path.glob("*batch*"))
        return _cifar_folder(path, classes, work, repr(stamps))
    return Source(lambda: _walk(path, "", skipped), _licence_of(os.listdir(path)))


def _sample() -> list[Entry]:
    places = [(_package("skimage") / "data", _SKIMAGE), (_package("sklearn") / "datasets" / "images", _SKLEARN)]
    return [
        Entry(name, str(folder / name), stamp=stamp_of(folder / name), splits=split)
        for folder, names in places
        for split in ("train", "val", "test")
        for name in names[split]
    ]


def _package(name: str) -> Path:
    """Where a package lies, found without importing it, which would take seconds."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ConfigError(f"data_source: 'sample' needs {name}: pip install 'kintsugi[train]'")
    return Path(spec.origin).parent


def _archive(path: Path, classes: tuple[str, ...], work: Path, stamp: str) -> Source:
    if not archives.is_archive(path):
        raise ConfigError(
            f"data_source: {str(path)!r} is a file, but no tar or zip archive; give a folder or an archive"
        )
    names = archives.first_names(path, 16)
    if cifar.holds_batches(names):
        return _cifar_archive(path, classes, work, stamp)
    listing = listed(work, stamp, lambda spool: archives.read_archive(path, spool))
    return Source(listing, _licence_of([Path(name).name for name in names]))


def _cifar_archive(path: Path, classes: tuple[str, ...], work: Path, stamp: str) -> Source:
    with archives.sentences(path):
        folder = cifar.unpack(path, work / f"batches-{short_digest(stamp)}")
    return _cifar_folder(folder, classes, work, stamp)


def _cifar_folder(folder: Path, classes: tuple[str, ...], work: Path, stamp: str) -> Source:
    wanted = () if classes == ("all",) else classes or _CIFAR_CLASSES
    listing = listed(work, f"{stamp} {wanted}", lambda spool: cifar.entries(folder, wanted, spool))
    return Source(listing, _LICENCES["cifar10"])


def _remote(uri: str, classes: tuple[str, ...], work: Path) -> Source:
    if urlparse(uri).path.lower().endswith(archives.SUFFIXES):
        stamp = f"{uri} {remote.stamp(uri)}"
        archive = work / f"archive-{short_digest(stamp)}"
        remote.fetch(uri, archive)
        try:
            return _archive(archive, classes, work, stamp)
        except ConfigError as error:
            raise ConfigError(str(error).replace(repr(str(archive)), uri).replace(str(archive), uri)) from None
    if uri.startswith("http"):
        remote.stamp(uri)  # fsspec takes a page that cannot be reached for an empty one
    stamp = f"{uri} {_this_process()}"  # a store is listed anew by each process
    if remote.exists(f"{uri.rstrip('/')}/batches.meta"):
        folder = work / f"batches-{short_digest(stamp)}"
        for name in cifar.BATCHES:
            with suppress(FileNotFoundError):  # whoever reads them says which are missing
                remote.fetch(f"{uri.rstrip('/')}/{name}", folder / name)
        return _cifar_folder(folder, classes, work, stamp)
    return Source(listed(work, stamp, lambda _: remote.walk(uri)), _UNKNOWN_LICENCE)


@cache
def _this_process() -> str:
    return secrets.token_hex(8)


def _walk(folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[Entry]:
    """The pictures below a folder in the order of their names; of a folder, no more than its names is in memory.

    Links to folders are followed, unless they lead back into one of those ``above``.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise ConfigError(f"data_source: {folder} cannot be listed ({error.strerror}); change its owner") from None
    here = (*above, os.path.realpath(folder))
    for name in names:
        path = folder / name
        if path.is_dir():
            if not name.startswith((".", "__MACOSX")) and os.path.realpath(path) not in here:
                yield from _walk(path, f"{prefix}{name}/", here)
        elif may_be_picture(name):
            yield _local_entry(path, clean_name(f"{prefix}{name}"))


def _local_entry(path: Path, name: str) -> Entry:
    try:
        found = path.stat()
    except OSError:
        return Entry(name, str(path), class_name=class_of(name), problem="a link to nothing")
    if not stat.S_ISREG(found.st_mode):
        return Entry(name, str(path), class_name=class_of(name), problem="not a regular file")
    return Entry(name, str(path), size=found.st_size, stamp=version_of(found), class_name=class_of(name))


def _licence_of(names: list[str]) -> str:
    papers = sorted(name for name in names if name.lower().startswith(_LICENCE_NAMES))
    if not papers:
        return _UNKNOWN_LICENCE
    return f"The source brings {', '.join(papers[:5])}; what they say of the pictures holds for a model, too."
