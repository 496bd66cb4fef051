from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.inpainting.dataset import PreparedDataset, Shards, npy_writer
from components.manifest import ManifestError


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)


def test_shards_read_like_one_array(pictures: np.ndarray) -> None:
    shards = Shards([pictures[:10], pictures[10:11], pictures[11:]])
    assert len(shards) == 23
    assert shards.shape == pictures.shape
    assert shards.nbytes == pictures.nbytes
    rows = np.array([22, 0, 10, 9, 10, 11])
    assert np.array_equal(shards.take(rows), pictures[rows])
    assert np.array_equal(shards[10], pictures[10])
    assert np.array_equal(np.asarray(shards), pictures)
    assert np.array_equal(np.stack(list(shards)), pictures)


def test_npy_written_in_pieces_is_memory_mapped_back(pictures: np.ndarray, tmp_path: Path) -> None:
    with npy_writer(tmp_path / "x.npy", pictures.shape) as file:
        for picture in pictures:
            file.write(picture.tobytes())
    assert np.array_equal(np.load(tmp_path / "x.npy", mmap_mode="r", allow_pickle=False), pictures)


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no finished dataset"):
        PreparedDataset.open(tmp_path)
