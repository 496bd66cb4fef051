"""A prepared dataset on disk, opened lazily: pictures memory-mapped, evaluation holes fixed.

::

    manifest.json
    train/images.npy                  uint8 N,H,W,3
    val/  test/ images.npy
                masks-<family>.npy    uint8 N,H,W, 1 = hole: one fixed hole per picture and family
                damaged-<family>.npy  uint8 N,H,W,3: what the damage looks like
    <split>/index.jsonl               per picture: photograph it was cut from, class, digest
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from components.inpainting.images import Bytes
from components.manifest import Manifest, read_manifest

KIND = "dataset"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """One split: pictures, what is known of them, and (val and test) fixed holes per family."""

    folder: Path

    @cached_property
    def images(self) -> Bytes:
        """Memory-mapped uint8 ``N,H,W,3``."""
        return _open(self.folder / "images.npy")

    @cached_property
    def index(self) -> list[dict[str, Any]]:
        """One row per picture: ``photo``, ``class_name``, ``sha256``."""
        return [json.loads(line) for line in (self.folder / "index.jsonl").read_text().splitlines()]

    def masks(self, family: str) -> Bytes:
        """The fixed holes of a family, uint8 ``N,H,W``."""
        return _open(self.folder / f"masks-{family}.npy")

    def damaged(self, family: str) -> Bytes:
        """The pictures with the family's damage painted in, uint8 ``N,H,W,3``."""
        return _open(self.folder / f"damaged-{family}.npy")


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset that the prepare step finished."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> PreparedDataset:
        """Open a dataset. Raises ``ManifestError`` when the folder holds none."""
        return cls(folder, read_manifest(folder, KIND))

    def split(self, name: str) -> Split:
        """One of ``SPLITS``."""
        return Split(self.folder / name)

    @property
    def families(self) -> tuple[str, ...]:
        """Mask families with fixed holes."""
        return tuple(self.manifest.facts["families"])

    @property
    def image_size(self) -> int:
        """Height and width of every picture, pixels."""
        return int(self.manifest.facts["image_size"])

    @property
    def box_size(self) -> int:
        """Side of the box hole in pixels; 0 where it varies."""
        return int(self.manifest.facts["box_size"])


def _open(path: Path) -> Bytes:
    array: Bytes = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
