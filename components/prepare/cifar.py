"""CIFAR-10 in its python-batch layout: download it, read it, trust none of it.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from components.config import ConfigError, suggestion
from components.inpainting.images import Bytes
from components.manifest import complete_folder
from components.prepare.archives import Limits, read_archive
from components.prepare.entries import SPOOL, Entry, read_entry
from components.prepare.remote import fetch

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
BATCHES = ("batches.meta", *(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_LIMITS = Limits(members=100, total_bytes=400_000_000)  # the official batches unpack to 186 MB

_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Allows numpy arrays and plain containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which no CIFAR-10 batch needs")
        return super().find_class(module, name)


def read(folder: Path, classes: tuple[str, ...]) -> Iterator[tuple[str, str, str, Bytes]]:
    """Read the batches of a folder: batch name, file name, class name, uint8 ``32,32,3`` pixels.

    ``classes`` keeps only those; empty keeps all. Raises ``ConfigError`` for a missing, damaged or
    hostile batch and for an unknown class.
    """
    names = [_text(name) for name in _load(folder / "batches.meta").get("label_names", [])]
    for wanted in classes:
        if wanted not in names:
            raise ConfigError(f"data_classes: CIFAR-10 has no class {wanted!r}{suggestion(wanted, names)}")
    batches = [*sorted(folder.glob("data_batch_*")), folder / "test_batch"]
    if len(batches) < 2:
        raise ConfigError(f"data_source: {folder} holds no data_batch_1 ... 5; give the whole CIFAR-10 folder")
    for path in batches:
        for label, name, picture in _rows(path):
            if not 0 <= label < len(names):
                raise ConfigError(f"data_source: {path} has a label {label}, but there are {len(names)} classes")
            if not classes or names[label] in classes:
                yield path.name, name, names[label], picture


def entries(folder: Path, classes: tuple[str, ...], spool: Path) -> Iterator[Entry]:
    """Yield the pictures of a folder of batches, copied into ``spool`` as BMP files.

    CIFAR-10's own test batch is tested on; of its training batches, a share is watched.
    """
    with spool.open("wb") as target:
        for batch, name, class_name, pixels in read(folder, classes):
            offset = target.tell()
            Image.fromarray(pixels).save(target, "BMP")
            splits = "test" if batch == "test_batch" else "val,train"
            size = target.tell() - offset
            stamp = str(zlib.crc32(pixels.tobytes()))
            yield Entry(f"{batch}/{name}", SPOOL, offset, size, stamp, class_name, splits)


def download(downloads: Path, *, url: str = URL, md5: str = MD5) -> Path:
    """Download the official archive once and check its md5; returns its path.

    An interrupted download goes on where it stopped. Raises ``ConfigError`` when the site cannot be
    reached or what came is not the archive.
    """
    from filelock import FileLock

    archive = downloads / "cifar-10-python.tar.gz"
    downloads.mkdir(parents=True, exist_ok=True)
    with FileLock(downloads / "cifar-10.lock"):
        return archive if archive.exists() else _fetch_checked(url, md5, archive)


def _fetch_checked(url: str, md5: str, archive: Path) -> Path:
    try:
        fetch(url, archive.with_suffix(".unchecked"))
    except FileNotFoundError:
        raise ConfigError(f"data_source: {url} is gone; download CIFAR-10 elsewhere and give the archive "
                          "or its folder as data_source") from None  # fmt: skip
    with archive.with_suffix(".unchecked").open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        archive.with_suffix(".unchecked").unlink()
        raise ConfigError(f"data_source: what came from {url} has md5 {found}, not {md5}; it was deleted, run again")
    return archive.with_suffix(".unchecked").rename(archive)


def holds_batches(names: Iterable[str]) -> bool:
    """Whether these are names of an archive of CIFAR-10 batches."""
    return any(PurePosixPath(name).name in ("batches.meta", "data_batch_1") for name in names)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the batches of an archive, once, into ``folder``: regular files in its batch folder, nothing else.

    Raises ``ConfigError`` for an archive that is damaged or larger than CIFAR-10.
    """
    if folder.exists():
        return folder
    with complete_folder(folder, "cifar10") as draft:
        for entry in read_archive(archive, draft.path / "spool", _LIMITS, wanted=_is_batch):
            if not entry.problem:
                (draft.path / PurePosixPath(entry.name).name).write_bytes(read_entry(entry, draft.path))
        (draft.path / "spool").unlink()
    return folder


def _is_batch(name: str) -> bool:
    """Whether a member lies at the top or in the only folder, whatever that is called, under a batch's name."""
    return name.count("/") <= 1 and PurePosixPath(name).name in BATCHES


def _rows(path: Path) -> Iterator[tuple[int, str, Bytes]]:
    """Label, file name and pixels of every picture of one batch."""
    batch = _load(path)
    try:
        pixels = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        rows = list(zip(batch["labels"], batch["filenames"], pixels, strict=True))
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"data_source: {path} is no CIFAR-10 batch ({error}); get it again") from None
    return ((int(label), _text(name), picture) for label, name, picture in rows)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        batch: dict[str, Any] = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        return {_text(key): value for key, value in batch.items()}
    except FileNotFoundError:
        raise ConfigError(f"data_source: {path} is missing; give the whole CIFAR-10 folder") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise ConfigError(f"data_source: {path} is no CIFAR-10 batch ({error}); get it again") from None


def _text(value: bytes | str) -> str:
    """Names are str or bytes, by the Python that wrote the batch."""
    return value.decode("latin1") if isinstance(value, bytes) else value
