"""Where pictures come from: the installed photographs, CIFAR-10, a folder, an archive, or a URI of these."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlparse

from components.config import ConfigError, DataConfig, locate, split_names
from components.prepare import archives, cifar, remote
from components.prepare.entries import Entry, class_of, listed, may_be_picture, stamp_of

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
    "Nothing in the source says under which licence its pictures stand; find out before you share a model"
)


@dataclass(frozen=True)
class Source:
    """A collection of pictures: ``entries()`` lists it anew, one entry at a time, in the same order each time."""

    entries: Callable[[], Iterator[Entry]]
    licence: str


def open_source(config: DataConfig, work: Path, downloads: Path) -> Source:
    """Open ``config.source``; what has to be downloaded or unpacked for it goes into ``work``.

    Raises ``ConfigError`` where there is nothing to read, and says what to do.
    """
    work.mkdir(parents=True, exist_ok=True)
    classes = () if config.classes == "auto" else split_names(config.classes)
    source = _open(config.source, classes, work, downloads)
    if not classes or classes == ("all",):
        return source
    return replace(source, entries=lambda: (entry for entry in source.entries() if entry.class_name in classes))


def work_folder(config: DataConfig, state: Path) -> Path:
    """A folder that stays the same from run to run while the source and what is cut from it do."""
    parts = (config.source, config.classes, config.image_size, config.crop, config.seed, config.code_version)
    return state / "prepare" / hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _open(place: str, classes: tuple[str, ...], work: Path, downloads: Path) -> Source:
    if place == "sample":
        return Source(lambda: iter(_sample()), _LICENCES["sample"])
    if place == "cifar10":
        return _cifar_archive(cifar.download(downloads), classes, work)
    if "://" in place and not place.startswith("file://"):
        return _remote(place, classes, work)
    path = Path(unquote(urlparse(place).path)) if "://" in place else Path(locate("data_source", place))
    if not path.exists():
        locate("data_source", str(path))
    if path.is_file():
        return _archive(path, classes, work)
    if (path / "batches.meta").exists():
        return _cifar_folder(path, classes, work)
    return Source(lambda: _walk(path, path), _licence_of(os.listdir(path)))


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


def _archive(path: Path, classes: tuple[str, ...], work: Path) -> Source:
    if not archives.is_archive(path):
        raise ConfigError(
            f"data_source: {str(path)!r} is a file, but no tar or zip archive; give a folder or an archive"
        )
    names = archives.first_names(path, 16)
    if cifar.holds_batches(names):
        return _cifar_archive(path, classes, work)
    listing = listed(work, f"{path} {stamp_of(path)}", lambda spool: archives.read_archive(path, spool))
    return Source(listing, _licence_of([Path(name).name for name in names]))


def _cifar_archive(path: Path, classes: tuple[str, ...], work: Path) -> Source:
    with archives.sentences(path):
        folder = cifar.unpack(path, work / f"batches-{stamp_of(path)}")
    return _cifar_folder(folder, classes, work)


def _cifar_folder(folder: Path, classes: tuple[str, ...], work: Path) -> Source:
    wanted = () if classes == ("all",) else classes or _CIFAR_CLASSES
    stamps = sorted((path.name, stamp_of(path)) for path in folder.glob("*batch*"))
    listing = listed(work, repr((stamps, wanted)), lambda spool: cifar.entries(folder, wanted, spool))
    return Source(listing, _LICENCES["cifar10"])


def _remote(uri: str, classes: tuple[str, ...], work: Path) -> Source:
    if not urlparse(uri).path.lower().endswith(archives.SUFFIXES):
        listing = listed(work, f"{uri} {os.getpid()}", lambda _: remote.walk(uri))  # a store is listed anew each time
        return Source(listing, _UNKNOWN_LICENCE)
    version = hashlib.sha256(f"{uri} {remote.stamp(uri)}".encode()).hexdigest()[:16]
    archive = work / f"archive-{version}"
    if not archive.exists():
        for old in work.glob("archive-*"):
            if not old.name.startswith(archive.name):
                old.unlink()
        remote.fetch(uri, archive)
    return _archive(archive, classes, work)


def _walk(folder: Path, root: Path) -> Iterator[Entry]:
    """The pictures below a folder in the order of their names; of what lies in memory, one folder at a time."""
    try:
        found = sorted(os.scandir(folder), key=lambda item: item.name)
    except OSError as error:
        raise ConfigError(f"data_source: {folder} cannot be listed ({error.strerror})") from None
    for item in found:
        name = os.path.relpath(item.path, root)
        if item.is_dir(follow_symlinks=False) and not item.name.startswith((".", "__MACOSX")):
            yield from _walk(Path(item.path), root)
        elif may_be_picture(name) and not item.is_dir():
            yield _local_entry(item, name)


def _local_entry(item: os.DirEntry[str], name: str) -> Entry:
    if not os.path.exists(item.path):
        return Entry(name, item.path, class_name=class_of(name), problem="a link to nothing")
    if not item.is_file():
        return Entry(name, item.path, class_name=class_of(name), problem="not a regular file")
    found = item.stat()
    stamp = f"{found.st_size}-{found.st_mtime_ns}"
    return Entry(name, item.path, size=found.st_size, stamp=stamp, class_name=class_of(name))


def _licence_of(names: list[str]) -> str:
    papers = sorted(name for name in names if name.lower().startswith(_LICENCE_NAMES))
    if not papers:
        return _UNKNOWN_LICENCE + "."
    return f"The source brings {', '.join(papers[:5])}; what they say of the pictures holds for a model, too."
