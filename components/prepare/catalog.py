"""The catalogue of a dataset in the making: what is usable, what is double, and who stands in which split.

It lives in an sqlite file in the work folder, so that a million pictures take no more memory than a
thousand; it is made anew from the chunks' rows each time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.config import ConfigError
from components.inpainting.dataset import SPLITS
from components.prepare.entries import Entry
from components.progress import track

SPLIT_SHARES = {"test": 0.1, "val": 0.1}
"""Shares of the pictures that are tested on and watched; the rest is trained on."""

NEAR = 6
"""Bits of 64 in which the perceptual hashes of near duplicates differ, at most."""

_MIN_PHOTOS = 3
_MAX_LENDERS = 1000  # pictures looked at for one to lend
_MAX_PAIRS = 1 << 21  # hashes compared at once
_SCHEMA = """
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY, name TEXT, entry TEXT, class_name TEXT, splits TEXT, sha256 TEXT, phash TEXT, mirrored TEXT,
    width INT, height INT, notes TEXT, red REAL, green REAL, blue REAL, contrast REAL, sharpness REAL,
    problem TEXT, fate TEXT, twin INT, split TEXT, file INT, row INT
);
CREATE TABLE files (id INTEGER PRIMARY KEY, path TEXT);
CREATE TABLE crops (picture INT, number INT, file INT, row INT, PRIMARY KEY (picture, number)) WITHOUT ROWID;
"""
_ENTRY_FIELDS = tuple(field.name for field in fields(Entry))

Hashes = npt.NDArray[np.uint64]


class Catalog:
    """The catalogue; ``load`` it, ``settle`` it, then ask."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32000;")
        self._db.executescript(_SCHEMA)
        self._db.create_function("assign", 2, _assign, deterministic=True)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def load(self, stems: Iterable[Path], total: int) -> None:
        """Take in the rows of all chunks (``<stem>.jsonl``, ``<stem>.bin``)."""
        for number, stem in enumerate(track(stems, "catalogue", total)):
            self._db.execute("BEGIN")
            self._db.execute("INSERT INTO files VALUES (?, ?)", (number, str(stem.with_suffix(".bin"))))
            with stem.with_suffix(".jsonl").open() as file:
                self._db.executemany(f"INSERT INTO pictures VALUES ({','.join('?' * 22)})",
                                     (_columns(json.loads(line), number) for line in file))  # fmt: skip
            self._db.execute("COMMIT")

    def mark_unusable(self) -> None:
        """Leave out what has a problem."""
        self._db.execute("UPDATE pictures SET fate = 'unusable' WHERE problem != ''")

    def settle(self) -> None:
        """Decide every picture's fate. Raises ``ConfigError`` where too few are left."""
        self.mark_unusable()
        self._db.executescript("""
            BEGIN;
            CREATE INDEX by_content ON pictures (sha256, splits = 'test' DESC, name, id) WHERE fate = '';
            CREATE TEMP TABLE twins (id INTEGER PRIMARY KEY, first INT);
            INSERT INTO twins SELECT id, first FROM (SELECT id, first_value(id) OVER
                (PARTITION BY sha256 ORDER BY splits = 'test' DESC, name, id) AS first
                FROM pictures WHERE fate = '') WHERE id != first;
            UPDATE pictures SET fate = 'duplicate', twin = first FROM twins WHERE twins.id = pictures.id;
            UPDATE pictures SET split = assign(sha256, splits) WHERE fate = '';
            COMMIT;
        """)
        self._require(self.count("fate = ''") >= _MIN_PHOTOS)
        self._part_near_twins()
        if self._lend():
            self._part_near_twins()
        self._require(all(self.count("fate = '' AND split = ?", split) for split in SPLITS))
        self._db.execute("CREATE INDEX by_split ON pictures (split, sha256) WHERE fate = ''")

    def _require(self, enough: bool) -> None:
        if not enough:
            different = self.count("fate = ''")
            raise ConfigError(
                f"data_source holds {different} different usable pictures of the classes asked for; at "
                f"least {_MIN_PHOTOS} are needed that do not resemble each other, one each to train on, to watch and "
                "to test on"
            )

    def _lend(self) -> bool:
        """Of a handful of pictures a split may get none by chance; it borrows one that resembles no other."""
        lent = False
        for split in SPLITS:
            if self.count("fate = '' AND split = ?", split):
                continue
            (largest, _), *_ = sorted(self.tally("split"), key=lambda row: -row[1])
            ids, hashes = self._hashes(largest)
            twins = [int(np.sum(np.bitwise_count(hashes ^ one) <= NEAR)) for one in hashes[:_MAX_LENDERS]]
            lonely = [i for i, count in enumerate(twins) if count == 1]
            for i in lonely or range(len(ids)):
                allowed = "id = ?1 AND instr(splits, ?2)"
                if self.count(allowed, int(ids[i]), split):
                    self._db.execute(f"UPDATE pictures SET split = ?2 WHERE {allowed}", (int(ids[i]), split))
                    lent = True
                    break
        return lent

    def _part_near_twins(self) -> None:
        """Leave out training pictures that resemble a watched or tested one, and watched that resemble a tested one.

        Every picture's split is its own content's; so what stands where never moves, and whoever would
        straddle steps aside. Mirror images resemble each other, since training mirrors pictures.
        """
        for leaving, staying in (("val", "test"), ("train", "test"), ("train", "val")):
            (left_ids, left), (stay_ids, stays) = self._hashes(leaving), self._hashes(staying)
            for seen in (stays, self._hashes(staying, "mirrored")[1]):
                pairs = ((int(stay_ids[twin]), int(left_ids[position])) for position, twin in near_pairs(left, seen))
                self._db.executemany("UPDATE pictures SET fate = 'near duplicate', twin = ? WHERE id = ?", pairs)

    def _hashes(self, split: str, column: str = "phash") -> tuple[npt.NDArray[np.int64], Hashes]:
        def rows() -> Iterator[tuple[int, str]]:
            query = f"SELECT id, {column} FROM pictures WHERE fate = '' AND split = ? ORDER BY sha256"
            yield from self._db.execute(query, (split,))

        return np.fromiter((i for i, _ in rows()), np.int64), np.fromiter((int(h, 16) for _, h in rows()), np.uint64)

    def count(self, condition: str, *values: str | int) -> int:
        """How many pictures meet a condition."""
        return int(self._db.execute(f"SELECT COUNT(*) FROM pictures WHERE {condition}", values).fetchone()[0])

    def tally(self, columns: str, condition: str = "fate = ''") -> list[tuple[Any, ...]]:
        """Pictures per value of ``columns``: rows of values and a count, ordered by value."""
        query = f"SELECT {columns}, COUNT(*) FROM pictures WHERE {condition} GROUP BY {columns} ORDER BY {columns}"
        return self._db.execute(query).fetchall()

    def sizes(self) -> dict[str, list[int]]:
        """Least, median and largest width and height of the kept pictures."""
        kept = self.count("fate = ''")
        return {
            side: [
                int(self._db.execute(f"SELECT {side} FROM pictures WHERE fate = '' ORDER BY {side} LIMIT 1 OFFSET ?",
                                     (offset,)).fetchone()[0])
                for offset in (0, kept // 2, kept - 1)
            ]
            for side in ("width", "height")
        }  # fmt: skip

    def values(self, expression: str) -> Iterator[float]:
        """An expression of every kept picture, in the order of content, which no machine changes."""
        query = f"SELECT {expression} FROM pictures WHERE fate = '' ORDER BY split, sha256"
        return (row[0] for row in self._db.execute(query))

    def left_out(self, fate: str) -> Iterator[dict[str, str]]:
        """What was left out: its name, and why or whose duplicate it is, in the order of names."""
        query = """SELECT p.name, p.problem, COALESCE(t.name, ''), COALESCE(t.split, '') FROM pictures p
            LEFT JOIN pictures t ON t.id = p.twin WHERE p.fate = ? ORDER BY p.name, p.id"""
        for name, problem, twin, split in self._db.execute(query, (fate,)):
            yield {"name": name, "reason": problem} if problem else {"name": name, "of": twin, "of_split": split}

    def contents(self, split: str) -> Iterator[str]:
        """The digests of a split's pictures, in order."""
        query = "SELECT sha256 FROM pictures WHERE fate = '' AND split = ? ORDER BY sha256"
        return (row[0] for row in self._db.execute(query, (split,)))

    def choose(self, split: str, varies: Any, limit: int) -> tuple[int, int]:
        """How many crops a split has at most ``limit`` (0: one a picture), and how many rounds of crops they take."""
        kept = self.count("fate = '' AND split = ?", split)
        if not limit or kept >= limit:
            return limit or kept, 1
        self._db.create_function("varies", 2, varies)
        varying = self.count("fate = '' AND split = ? AND varies(width, height)", split)
        if not varying:
            return kept, 1
        return limit, -(-(limit - (kept - varying)) // varying)

    def to_cut(self, split: str) -> Iterator[tuple[int, Entry, str]]:
        """The pictures of a split that give several crops: identity, entry, digest."""
        query = """SELECT id, entry, sha256 FROM pictures WHERE fate = '' AND split = ? AND varies(width, height)
            ORDER BY sha256"""
        for identity, entry, sha256 in self._db.execute(query, (split,)):
            yield identity, Entry(**json.loads(entry)), sha256

    def add_crops(self, path: Path, crops: Iterable[tuple[int, int]]) -> None:
        """Note the further crops (picture, number) that lie in a file one behind the other."""
        self._db.execute("INSERT INTO files VALUES (NULL, ?)", (str(path),))
        file = self._db.execute("SELECT last_insert_rowid()").fetchone()[0]
        self._db.executemany("INSERT INTO crops VALUES (?, ?, ?, ?)",
                             ((picture, number, file, row) for row, (picture, number) in enumerate(crops)))  # fmt: skip

    def crops(self, split: str, limit: int) -> Iterator[tuple[dict[str, Any], str, int]]:
        """The crops of a split in their final order: index row, the file that holds the pixels, the row in it."""
        query = """
            SELECT name, class_name, sha256, width, height, number, path, crop_row FROM (
                SELECT name, class_name, sha256, width, height, 0 AS number, file, row AS crop_row FROM pictures
                    WHERE fate = '' AND split = ?1
                UNION ALL SELECT name, class_name, sha256, width, height, number, crops.file, crops.row
                    FROM crops JOIN pictures ON id = picture WHERE fate = '' AND split = ?1
            ) JOIN files ON files.id = file ORDER BY number, sha256 LIMIT ?2"""
        for name, class_name, sha256, width, height, number, path, row in self._db.execute(query, (split, limit)):
            facts = {"photo": name, "class_name": class_name, "sha256": sha256, "crop": number}
            yield facts | {"width": width, "height": height}, path, row


def near_pairs(ones: Hashes, others: Hashes) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose 64-bit hashes differ in at most ``NEAR`` bits, each position of ``ones`` at most once.

    Hashes that differ in at most 7 bits differ in at most one bit of some quarter, so only those are
    compared (Manku et al., "Detecting Near-Duplicates for Web Crawling", 2007).
    """
    theirs, first = np.unique(others, return_index=True)
    mine, back = np.unique(ones, return_inverse=True)
    twins = np.full(len(mine), -1)
    for shift in np.array([0, 16, 32, 48], np.uint64):
        wanted, keys = (((hashes >> shift) & np.uint64(0xFFFF)).astype(np.int64) for hashes in (mine, theirs))
        order, sizes = np.argsort(keys, kind="stable"), np.bincount(keys, minlength=1 << 16)
        for flip in (0, *(1 << bit for bit in range(16))):
            starts = (np.cumsum(sizes) - sizes)[wanted ^ flip]
            counts = np.where(twins < 0, sizes[wanted ^ flip], 0)
            for block in _blocks(counts):
                ours = np.repeat(block, counts[block])
                steps = np.arange(len(ours)) - np.repeat(np.cumsum(counts[block]) - counts[block], counts[block])
                candidates = order[np.repeat(starts[block], counts[block]) + steps]
                near = np.bitwise_count(mine[ours] ^ theirs[candidates]) <= NEAR
                twins[ours[near]] = first[candidates[near]]
    yield from ((int(position), int(twins[back[position]])) for position in np.flatnonzero(twins[back] >= 0))


def _blocks(counts: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Positions with something to compare, so many at a time that memory stays small."""
    positions = np.flatnonzero(counts)
    edges = np.cumsum(counts[positions]) // _MAX_PAIRS
    yield from (block for block in np.split(positions, np.flatnonzero(np.diff(edges)) + 1) if len(block))


def _assign(sha256: str, splits: str) -> str:
    """The split of a picture: by a hash of its content, which no name, order or neighbour changes."""
    allowed = splits.split(",")
    position = int(sha256[:15], 16) / 16**15
    for split in allowed[:-1]:
        position -= SPLIT_SHARES[split]
        if position < 0:
            return split
    return allowed[-1]


def _columns(row: dict[str, Any], file: int) -> tuple[Any, ...]:
    entry = json.dumps({name: row[name] for name in _ENTRY_FIELDS})
    hashes = [row.get(name) for name in ("sha256", "phash", "mirrored")]
    measured = [row.get(name) for name in ("red", "green", "blue", "contrast", "sharpness")]
    return (
        None, row["name"], entry, row["class_name"], row["splits"], *hashes,
        row.get("width"), row.get("height"), ",".join(row.get("notes", [])), *measured,
        row["problem"], "", None, None, file, row.get("crop"),
    )  # fmt: skip
