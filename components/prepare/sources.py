"""Where pictures come from: the installed sample photographs, CIFAR-10, or a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from components.config import ConfigError, DataConfig, missing_source
from components.inpainting.images import SUFFIXES, Bytes, ImageError, read_image
from components.prepare import cifar
from components.progress import track

_SKIMAGE = {
    "train": ("astronaut.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg", "hubble_deep_field.jpg",
              "camera.png", "moon.png", "coins.png", "ihc.png", "brick.png", "gravel.png"),
    "val": ("coffee.png",),
    "test": ("chelsea.png", "grass.png"),
}  # fmt: skip
_SKLEARN = {"train": ("flower.jpg",), "val": (), "test": ("china.jpg",)}

SPLIT_SHARES = {"test": 0.1, "val": 0.1}
"""Shares of a folder's pictures that are tested on and watched; the rest is trained on."""


@dataclass(frozen=True)
class Photo:
    """One picture of a source: where it is from, and how to read its pixels (uint8 ``H,W,3``)."""

    name: str
    read: Callable[[], Bytes] = field(repr=False)
    class_name: str = ""

    @cached_property
    def sha256(self) -> str:
        """Digest of the decoded pixels."""
        pixels = self.read()
        return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()


_MIN_PHOTOS = 3

Splits = dict[str, list[Photo]]


def open_source(config: DataConfig, downloads: Path) -> Splits:
    """The photographs of ``config.source``, split so that none stands in two splits.

    Raises ``ConfigError`` or ``ImageError`` where there is nothing to read or a picture is damaged.
    """
    if config.source == "sample":
        return _sample()
    if config.source == "cifar10":
        return _cifar(cifar.download(downloads), config.class_names)
    folder = Path(config.source).expanduser()
    if not folder.is_dir():
        raise missing_source(folder)
    if (folder / "batches.meta").exists():
        return _cifar(folder, config.class_names)
    return _folder(folder, config.class_names)


def _sample() -> Splits:
    import skimage
    import sklearn

    places = [
        (Path(skimage.__file__).parent / "data", _SKIMAGE),
        (Path(sklearn.__file__).parent / "datasets" / "images", _SKLEARN),
    ]
    return {
        split: [_photo(folder / name, folder) for folder, names in places for name in names[split]]
        for split in ("train", "val", "test")
    }


def _cifar(folder: Path, classes: tuple[str, ...]) -> Splits:
    """CIFAR-10's own test batch is tested on; of its training batches, a share is watched."""
    splits: Splits = {"train": [], "val": [], "test": []}
    for batch, name, class_name, pixels in cifar.read(folder, classes):
        photo = Photo(f"{batch}/{name}", partial(np.asarray, pixels), class_name)
        watched = batch != "test_batch" and _position(photo) < SPLIT_SHARES["val"] / 2
        splits["test" if batch == "test_batch" else "val" if watched else "train"].append(photo)
    if sum(map(len, splits.values())) < _MIN_PHOTOS:
        raise ConfigError(f"data_source: {folder} holds fewer than {_MIN_PHOTOS} pictures of the classes asked for")
    return _with_none_empty(splits)


def _folder(folder: Path, classes: tuple[str, ...]) -> Splits:
    photos = [_photo(path, folder) for path in _picture_files(folder)]
    if classes:
        photos = [photo for photo in photos if photo.class_name in classes]
    photos = _readable(photos)
    if len(photos) < _MIN_PHOTOS:
        kept = f" of the classes {', '.join(classes)}" if classes else ""
        raise ConfigError(
            f"data_source: {str(folder)!r} holds {len(photos)} different pictures{kept} ({', '.join(SUFFIXES)}); "
            f"at least {_MIN_PHOTOS} are needed, one each to train on, to watch and to test on"
        )
    return _split_by_content(photos)


def _picture_files(folder: Path) -> list[Path]:
    """Pictures below a folder; what is hidden, or lies in something hidden, is none."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _photo(path: Path, root: Path) -> Photo:
    parent = path.relative_to(root).parent
    return Photo(path.relative_to(root).as_posix(), lambda: read_image(path), "" if parent == Path() else parent.name)


def _readable(photos: list[Photo]) -> list[Photo]:
    """The photographs, equal ones once; raises ``ImageError`` naming those that cannot be read."""
    different: dict[str, Photo] = {}
    problems = []
    for photo in track(photos, "read pictures", len(photos)):
        try:
            different.setdefault(photo.sha256, photo)
        except ImageError as error:
            problems.append(str(error))
    if problems:
        listed = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise ImageError(f"{len(problems)} of {len(photos)} pictures cannot be read: {listed}. Remove or replace them")
    return list(different.values())


def _split_by_content(photos: list[Photo]) -> Splits:
    """Split by a hash of the pixels, which no name and no order changes."""
    test, val = SPLIT_SHARES["test"], SPLIT_SHARES["test"] + SPLIT_SHARES["val"]
    splits: Splits = {"train": [], "val": [], "test": []}
    for photo in sorted(photos, key=_position):
        position = _position(photo)
        splits["test" if position < test else "val" if position < val else "train"].append(photo)
    return _with_none_empty(splits)


def _with_none_empty(splits: Splits) -> Splits:
    """Of a handful of pictures a split may get none by chance; it borrows one from the largest."""
    for photos in splits.values():
        if not photos:
            photos.append(max(splits.values(), key=len).pop(0))
    return splits


def _position(photo: Photo) -> float:
    return int(photo.sha256[:15], 16) / 16**15
