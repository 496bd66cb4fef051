from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.config import ConfigError
from components.prepare.catalog import NEAR, SPLIT_SHARES, Catalog, near_pairs
from components.prepare.entries import ALL_SPLITS


def row(number: int, phash: int = 0, **changes: Any) -> dict[str, Any]:
    sha256 = np.random.default_rng(number).bytes(32).hex()
    return {
        "name": f"{number:05}.png", "where": "here", "offset": -1, "size": 9, "stamp": "", "class_name": "",
        "splits": ALL_SPLITS, "problem": "", "sha256": sha256, "phash": f"{phash:016x}", "width": 64, "height": 64,
        "notes": [], "red": 0.5, "green": 0.5, "blue": 0.5, "contrast": 0.1, "sharpness": 0.01, "crop": 0,
        "mirrored": f"{_mirror(phash):016x}",
    } | changes  # fmt: skip


def _mirror(phash: int) -> int:
    """Stands for the hash of the mirror image: other bits, and its own inverse."""
    return phash ^ 0x5555555555555555


def settled(rows: list[dict[str, Any]], folder: Path) -> Catalog:
    (folder / "0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    catalog = Catalog(folder / "catalog.sqlite")
    catalog.load([folder / "0"], 1)
    catalog.settle()
    return catalog


def hashes(count: int, seed: int = 0) -> list[int]:
    return [int(value) for value in np.random.default_rng(seed).integers(0, 2**63, count)]


def test_splits_have_their_shares_and_depend_on_content_alone(tmp_path: Path) -> None:
    rows = [row(i, phash) for i, phash in enumerate(hashes(4000))]
    catalog = settled(rows, tmp_path)
    shares = dict(catalog.tally("split"))
    assert all(abs(shares[split] / 4000 - share) < 0.02 for split, share in SPLIT_SHARES.items())
    before = {sha: split for split in shares for sha in catalog.contents(split)}
    renamed = [r | {"name": f"new-{r['name']}"} for r in reversed(rows[:2000])]
    catalog = settled(renamed, tmp_path)
    assert all(before[sha] == split for split in shares for sha in catalog.contents(split))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60))
def test_near_pairs_are_those_of_a_plain_comparison(seed: int, num_ones: int, num_others: int) -> None:
    rng = np.random.default_rng(seed)
    others = rng.integers(0, 2**64, num_others, dtype=np.uint64)
    ones = rng.choice(others, num_ones)
    for i in range(num_ones):  # flip some bits, about as many as are allowed
        for bit in rng.choice(64, rng.integers(0, 2 * NEAR), replace=False):
            ones[i] ^= np.uint64(1 << int(bit))
    distances = np.bitwise_count(ones[:, None] ^ others[None])
    found = dict(near_pairs(ones, others))
    assert set(found) == set(np.flatnonzero((distances <= NEAR).any(1)))
    assert all(distances[one, other] <= NEAR for one, other in found.items())


def test_near_pairs_of_hashes_that_share_a_quarter_take_little_memory() -> None:
    ones, others = (np.arange(start, start + 6000, dtype=np.uint64) << np.uint64(20) for start in (0, 1 << 20))
    tracemalloc.start()
    found = list(near_pairs(np.repeat(ones, 10), others))
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
    assert len(found) == 60_000


def test_a_tested_picture_stays_and_its_near_twins_leave(tmp_path: Path) -> None:
    """Whatever the names and the order: test before val before train."""
    different = hashes(40)
    twins = [row(100 + i, different[i] ^ 0b101, splits=splits)
             for i, splits in enumerate(["train", "val", "test"])]  # fmt: skip
    fixed = [row(i, phash, splits=["test", "test", "train"][i % 3]) for i, phash in enumerate(different)]
    rows = [*fixed, *twins, row(200, different[39] ^ 0b11, splits="val"), row(201, 77, splits="val")]
    catalog = settled(rows, tmp_path)
    told = {item["name"]: item["of"] for item in catalog.left_out("near duplicate")}
    assert told == {"00100.png": "00000.png", "00101.png": "00001.png", "00002.png": "00102.png",
                    "00200.png": "00039.png"}  # fmt: skip


def test_a_mirror_image_resembles(tmp_path: Path) -> None:
    different = hashes(30)
    rows = [row(i, phash, splits=("test", "val", "train")[i % 3]) for i, phash in enumerate(different)]
    catalog = settled([*rows, row(99, _mirror(different[0]) ^ 0b11, splits="train")], tmp_path)
    assert [(r["name"], r["of"]) for r in catalog.left_out("near duplicate")] == [("00099.png", "00000.png")]


def test_equal_content_is_kept_once_by_the_first_name_and_rather_in_the_test_split(tmp_path: Path) -> None:
    rows = [row(i, phash, splits="train" if i < 40 else "test") for i, phash in enumerate(hashes(60))]
    rows += [row(90, 5, splits="val")]
    same = {"sha256": rows[0]["sha256"], "phash": rows[0]["phash"]}
    tested = {"sha256": rows[1]["sha256"], "phash": rows[1]["phash"], "splits": "test"}
    catalog = settled([*rows, row(70) | same, row(71) | tested], tmp_path)
    told = {item["name"]: item["of"] for item in catalog.left_out("duplicate")}
    assert told == {"00070.png": "00000.png", "00001.png": "00071.png"}


def test_a_handful_of_pictures_fills_every_split(tmp_path: Path) -> None:
    for seed in range(20):
        catalog = settled([row(100 * seed + i, phash) for i, phash in enumerate(hashes(3, seed))], tmp_path)
        assert sorted(dict(catalog.tally("split")).values()) == [1, 1, 1]


def test_pictures_that_all_resemble_each_other_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="that do not resemble each other"):
        settled([row(i, 0b111 << i % 3) for i in range(30)], tmp_path)


def test_crops_come_in_rounds_in_the_order_of_content(tmp_path: Path) -> None:
    rows = [row(i, phash, splits="train", width=200) for i, phash in enumerate(hashes(5))]
    rows += [
        row(10 + i, phash, splits=split)
        for i, (phash, split) in enumerate(zip(hashes(2, 9), ["val", "test"], strict=True))
    ]
    catalog = settled(rows, tmp_path)
    assert catalog.choose("train", lambda width, height: width != height, 3) == (3, 1)
    assert catalog.choose("train", lambda width, height: width != height, 0) == (5, 1)
    assert catalog.choose("train", lambda width, height: width != height, 12) == (12, 3)
    assert catalog.choose("test", lambda width, height: width != height, 12) == (1, 1)
    catalog.choose("train", lambda width, height: width != height, 12)
    for picture, _, _ in list(catalog.to_cut("train")):
        catalog.add_crops(tmp_path / f"{picture}.bin", [(picture, 1), (picture, 2)])
    crops = list(catalog.crops("train", 12))
    assert [facts["crop"] for facts, _, _ in crops] == [0] * 5 + [1] * 5 + [2] * 2
    digests = [facts["sha256"] for facts, _, _ in crops]
    assert digests[:5] == digests[5:10] == sorted(digests[:5])
