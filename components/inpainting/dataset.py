"""A prepared dataset on disk, opened lazily: pictures memory-mapped, evaluation holes fixed.

::

    manifest.json
    quarantine.jsonl  duplicates.jsonl     what was left out, and why
    train/  val/  test/
        images-00000.npy ...               uint8 N,H,W,3
        index.jsonl                        per picture: photograph, class, digest, crop, size
    val/  test/
        masks-<family>.npy                 uint8 N,H,W, 1 = hole: one fixed hole per picture and family
        damaged-<family>.npy               uint8 N,H,W,3: what the damage looks like
    train/  masks-custom.npy               uint8 M,H,W: a user's own masks to train with
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from components.inpainting.images import Bytes
from components.inpainting.masks import CUSTOM, MaskMixture
from components.manifest import Manifest, read_json_lines, read_manifest

KIND = "dataset"
SPLITS = ("train", "val", "test")


class Shards:
    """Pictures, uint8 ``N,H,W,3``, in one or more memory-mapped arrays: reads touch no more than they ask for."""

    def __init__(self, shards: Sequence[Bytes]) -> None:
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in self._shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, H, W, 3)``."""
        return (len(self), *self._shards[0].shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures."""
        return sum(shard.nbytes for shard in self._shards)

    def __getitem__(self, row: int) -> Bytes:
        """One picture, uint8 ``H,W,3``."""
        picture: Bytes = self.take([row % len(self)])[0]
        return picture

    def __iter__(self) -> Iterator[Bytes]:
        for shard in self._shards:
            yield from shard

    def take(self, rows: npt.ArrayLike) -> Bytes:
        """The pictures of some rows, in their order, copied into memory."""
        numbers = np.asarray(rows)
        where = np.searchsorted(self._ends, numbers, "right")
        taken = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for shard in np.unique(where):
            start = self._ends[shard] - len(self._shards[shard])
            taken[where == shard] = self._shards[shard][numbers[where == shard] - start]
        return taken

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Bytes:
        whole: Bytes = self._shards[0] if len(self._shards) == 1 else np.concatenate(self._shards)
        return whole if dtype is None else whole.astype(dtype)


@dataclass(frozen=True)
class Split:
    """One split: pictures, what is known of them, and (val and test) fixed holes per family."""

    folder: Path

    @cached_property
    def images(self) -> Shards:
        """The pictures, uint8 ``N,H,W,3``."""
        return Shards([_open(path) for path in sorted(self.folder.glob("images-*.npy"))])

    @cached_property
    def index(self) -> list[dict[str, Any]]:
        """One row per picture: ``photo``, ``class_name``, ``sha256``, ``crop``, ``width``, ``height``."""
        return read_json_lines(self.folder / "index.jsonl")

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
        return tuple(self.manifest.facts["masks"])

    @property
    def image_size(self) -> int:
        """Height and width of every picture, pixels."""
        return int(self.manifest.facts["image_size"])

    @property
    def mixture(self) -> MaskMixture:
        """The mask families to train with, by weight."""
        facts = self.manifest.facts
        custom = _open(self.folder / "train" / f"masks-{CUSTOM}.npy") if CUSTOM in facts["masks"] else None
        return MaskMixture(facts["masks"], self.image_size, facts["box_size"], custom)


@contextmanager
def npy_writer(path: Path, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """Write an npy file of uint8 and known shape a piece at a time: the raw bytes of its rows, in order."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        yield file


def _open(path: Path) -> Bytes:
    array: Bytes = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
