from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import re
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from components.config import ConfigError
from components.inpainting.images import encode_png
from components.prepare import archives
from components.prepare.archives import LIMITS, Limits, first_names, is_archive, read_archive
from components.prepare.entries import Entry, read_entry
from components.prepare.sources import Source, open_source
from tests.conftest import data_config

Make = Callable[..., bytes]
Write = Callable[..., Path]
Found = dict[str, "bytes | str"]

PNG = [encode_png(np.random.default_rng(n).integers(0, 256, (24, 24, 3), dtype=np.uint8)) for n in range(4)]
PICTURES = {"cats/1.png": PNG[0], "cats/two.JPG": PNG[1], "dogs/old/3.webp": PNG[2], "4": PNG[3]}
CLASSES = {"cats/1.png": "cats", "cats/two.JPG": "cats", "dogs/old/3.webp": "old", "4": ""}
NO_PICTURES = {
    "LICENSE.txt": b"CC0",
    "cats/labels.csv": b"1,2",
    ".hidden.png": PNG[0],
    "._1.png": PNG[0],
    "cats/._1.png": PNG[0],
    "./.cache/1.png": PNG[0],
    "__MACOSX/cats/1.png": PNG[0],
}
SPECIAL = "a link or a special file, which is not followed"
SMALL = Limits(ratio=50, floor_bytes=1 << 20)
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)  # of a tar


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", pax: dict[str, str] | None = None
) -> bytes:
    """A member of a tar as tarfile writes it."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.pax_headers = len(content), kind, link, pax or {}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + padded(content)


def header(kind: bytes, size: int, name: str = "x.png", **numbers: int) -> bytes:
    """One block of a tar with any numbers in it, each named by its place in the block."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[156:157] = kind
    for place, number in {"at124": size, **numbers}.items():
        octal = b"%011o\0" % number if 0 <= number < 8**11 else (number % 256**12 | 0x80 << 88).to_bytes(12, "big")
        block[int(place[2:]) : int(place[2:]) + 12] = octal
    return with_checksum(block)


def with_checksum(block: bytearray) -> bytes:
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * ord(" ") + sum(block[156:]))
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    return b"".join(member(*item) for item in members) + END


def zipped(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            archive.writestr(name, content, method)
    return buffer.getvalue()


def stored(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    return zipped(members, zipfile.ZIP_STORED)


KINDS: dict[str, Make] = {
    "tar": tar,
    "tar.gz": lambda members: gzip.compress(tar(members)),
    "tar.bz2": lambda members: bz2.compress(tar(members)),
    "tar.xz": lambda members: lzma.compress(tar(members)),
    "zip": zipped,
    "zip, stored": stored,
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
plain_and_packed = pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "tar.gz"])


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()}


def contents(entries: Iterable[Entry], work: Path) -> Found:
    """What each entry gives: its bytes, or its problem."""
    return {entry.name: entry.problem or read_entry(entry, work) for entry in entries}


def read(path: Path, work: Path, limits: Limits = LIMITS) -> Found:
    return contents(list(read_archive(path, work / "spool", limits)), work)


def opened(path: Path, work: Path) -> Source:
    return open_source(data_config(source=str(path)), work, work.parent)


def peak(act: Callable[[], object]) -> int:
    """Bytes that Python takes at most while it acts."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(path: Path, work: Path, pattern: str, limits: Limits = LIMITS) -> None:
    """An archive is refused in one sentence that names it and says what to do, in little memory."""

    def try_all() -> None:
        with pytest.raises(ConfigError, match=pattern) as caught:
            read(path, work, limits)
        text = str(caught.value)
        assert str(path) in text
        assert "; " in text
        assert "\n" not in text
        first_names(path, 16)
        is_archive(path)

    assert peak(try_all) < 16 << 20


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "work"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: bytes, name: str = "pictures.data") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


# Ordinary archives


@every_kind
def test_every_kind_gives_the_same_pictures(make: Make, write: Write, work: Path) -> None:
    folder = [("cats/", b"")] if make in (zipped, stored) else []
    for name in ("pictures", "pictures.zip", "pictures.tar", "pictures.png"):  # the content decides
        path = write(make([*folder, *NO_PICTURES.items(), *PICTURES.items()]), name)
        assert is_archive(path)
        source = opened(path, work)
        assert {entry.name: entry.class_name for entry in source.entries()} == CLASSES
        assert contents(source.entries(), work) == PICTURES
        assert [entry.certain for entry in source.entries()] == [True, True, True, False]
        assert "LICENSE.txt" in source.licence


@every_kind
def test_first_names_are_those_of_the_first_members(make: Make, write: Write) -> None:
    path = write(make(PICTURES.items()))
    assert first_names(path, 2) == ["cats/1.png", "cats/two.JPG"]
    assert first_names(path, 99) == list(PICTURES)
    assert first_names(write(b"no archive"), 2) == []


def test_what_is_no_archive_is_told_by_its_content(write: Write, tmp_path: Path, work: Path) -> None:
    for content in (b"", b"name,label\n" * 99, PNG[0], bytes(BLOCK - 1), b"%PDF-1.7" + bytes(BLOCK)):
        path = write(content, "pictures.tar")
        assert not is_archive(path)
        refused(path, work, "is damaged")
        with pytest.raises(ConfigError, match="no tar or zip archive; give a folder or an archive"):
            opened(path, work)
    for place in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            is_archive(place)


@every_kind
def test_an_archive_of_nothing_says_so(make: Make, write: Write, work: Path) -> None:
    path = write(make([]))
    refused(path, work, "holds nothing; give an archive of pictures")
    with pytest.raises(ConfigError, match="holds nothing"):
        opened(path, work)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_as_programs_write_them_are_read(format: int, write: Write, work: Path) -> None:
    long = f"{'deep/' * 30}1.png" if format == tarfile.USTAR_FORMAT else f"{'name' * 50}/{'deep/' * 300}1.png"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        archive.add(work, "cats")  # a folder
        for name, content in {**PICTURES, long: PNG[1]}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5
            archive.addfile(info, io.BytesIO(content))
    assert read(write(buffer.getvalue()), work) == {**PICTURES, long: PNG[1]}


def test_a_tar_of_the_seventies_is_read(write: Write, work: Path) -> None:
    block = bytearray(header(tarfile.AREGTYPE, len(PNG[0]), "cats/1.png"))
    block[257:] = bytes(BLOCK - 257)  # no magic, no owners
    path = write(with_checksum(block) + padded(PNG[0]) + END)
    assert is_archive(path)
    assert read(path, work) == {"cats/1.png": PNG[0]}


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_file_of_several_streams_is_read_to_its_end(pack: Callable[[bytes], bytes], write: Write, work: Path) -> None:
    content = tar(PICTURES.items())
    assert read(write(pack(content[:1000]) + pack(content[1000:])), work) == PICTURES


# Names


@every_kind
def test_a_name_that_leaves_the_archive_is_a_problem_and_nothing_is_written(
    make: Make, write: Write, work: Path, tmp_path: Path
) -> None:
    names = ["../escape.png", "cats/../../../escape.png", "a\\..\\..\\..\\b.png", "C:\\x.png", "C:x.png",
             "\\\\host\\share\\x.png", "//host/x.png", "/x.png", f"{tmp_path}/absolute.png"]  # fmt: skip
    path = write(make([*((name, PNG[0]) for name in names), *PICTURES.items()]))
    before = tree(tmp_path)
    entries = list(opened(path, work).entries())
    assert [entry.problem for entry in entries] == ["its name leaves the archive"] * len(names) + [""] * len(PICTURES)
    assert contents(entries[len(names) :], work) == PICTURES
    assert not any(entry.name.startswith("/") or ".." in entry.name for entry in entries)
    added = {name: size for name, size in tree(tmp_path).items() if name not in before}
    assert [re.sub("-[0-9a-f]{16}", "", name) for name in sorted(added)] == [
        "state/work/entries.jsonl", "state/work/source.lock", "state/work/spool",
    ]  # fmt: skip
    assert added[max(added)] == (0 if make is tar else sum(map(len, PICTURES.values())))


@every_kind
def test_control_characters_in_a_name_are_a_problem_and_are_not_shown(make: Make, write: Write, work: Path) -> None:
    names = ["cats/a\nb.png", "cats/\x1b[2Jc.png", "cats/\x7fd.png"]
    path = write(make([*((name, PNG[0]) for name in names), ("5.png", PNG[1])]))
    entries = list(opened(path, work).entries())
    assert [entry.problem for entry in entries] == ["its name has control characters"] * 3 + [""]
    assert "".join(entry.name for entry in entries).isprintable()
    assert len(first_names(path, 9)) == 4
    assert "".join(first_names(path, 9)).isprintable()


def test_a_zero_in_a_name_is_a_problem(write: Write, work: Path) -> None:
    path = write(member("x.png", PNG[0], pax={"path": "cats/a\0b.png"}) + END)
    assert read(path, work) == {"cats/a\ufffdb.png": "its name has control characters"}
    content = stored([("cats/a_b.png", PNG[0]), ("5.png", PNG[1])]).replace(b"a_b.png", b"a\0b.png")
    assert read(write(content), work) == {"cats/a": "its name has control characters", "5.png": PNG[1]}
    content = stored([("_zero", PNG[0]), ("5.png", PNG[1])]).replace(b"_zero", b"\0zero")
    assert read(write(content), work) == {"": "its name has control characters", "5.png": PNG[1]}


@every_kind
def test_odd_names_that_stay_inside_are_read(make: Make, write: Write, work: Path) -> None:
    names = ["12:30.png", "./cats/5.png", "cats//6.png", "été/é…😀.png", "cats/a..b.png", "cats/a\\7.png"]
    entries = list(read_archive(write(make((name, PNG[0]) for name in names)), work / "spool"))
    assert [entry.problem for entry in entries] == [""] * len(names)
    assert [entry.class_name for entry in entries] == ["", "cats", "cats", "été", "cats", "a"]
    assert [entry.name for entry in entries][1:3] == ["cats/5.png", "cats/6.png"]


def test_names_that_are_not_utf_8_become_text(write: Write, work: Path) -> None:
    info = tarfile.TarInfo("été/1.png")
    (entry,) = read_archive(write(info.tobuf(tarfile.GNU_FORMAT, "latin-1") + END), work / "spool")
    assert (entry.name, entry.class_name, entry.problem) == ("\ufffdt\ufffd/1.png", "\ufffdt\ufffd", "")


@pytest.mark.parametrize("name", ["", ".", "./", "..", "/"])
def test_a_file_without_a_name_is_a_problem(name: str, write: Write, work: Path) -> None:
    path = write(header(tarfile.REGTYPE, len(PNG[0]), name) + padded(PNG[0]) + member("5.png", PNG[1]) + END)
    assert read(path, work) == {"": "it has no name", "5.png": PNG[1]}


# Links and special files


@plain_and_packed
def test_links_and_special_files_in_a_tar_are_a_problem(
    pack: Callable[[bytes], bytes], write: Write, work: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    special = {
        "link.png": member("link.png", kind=tarfile.SYMTYPE, link=str(secret)),
        "cats/up.png": member("cats/up.png", kind=tarfile.SYMTYPE, link="../../secret.png"),
        "hard.png": member("hard.png", kind=tarfile.LNKTYPE, link=str(secret)),
        "same.png": member("same.png", kind=tarfile.LNKTYPE, link="cats/1.png"),
        "large.png": header(tarfile.LNKTYPE, 1 << 40, "large.png"),  # of a link, the size means nothing
        "tape.png": member("tape.png", kind=tarfile.CHRTYPE),
        "disk.png": member("disk.png", kind=tarfile.BLKTYPE),
        "pipe.png": member("pipe.png", kind=tarfile.FIFOTYPE),
        "unknown.png": member("unknown.png", PNG[0], kind=b"Z"),
    }
    pictures = [member(*item) for item in PICTURES.items()]
    path = write(pack(b"".join([*pictures[:2], *special.values(), *pictures[2:], END])))
    assert read(path, work) == PICTURES | dict.fromkeys(special, SPECIAL)


@plain_and_packed
def test_a_linked_folder_is_a_problem_and_what_is_named_below_it_is_read_from_the_archive(
    pack: Callable[[bytes], bytes], write: Write, work: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = member("cats", kind=tarfile.SYMTYPE, link=str(folder))
    entries = list(read_archive(write(pack(link + member("cats/1.png", PNG[0]) + END)), work / "spool"))
    assert not entries[0].certain
    assert contents(entries, work) == {"cats": SPECIAL, "cats/1.png": PNG[0]}
    assert list(folder.iterdir()) == []


@plain_and_packed
def test_sparse_files_are_a_problem_and_are_not_filled(
    pack: Callable[[bytes], bytes], write: Write, work: Path
) -> None:
    """8 TB of holes with a block of data, as GNU tar wrote such files once, and as it does now."""
    old = header(tarfile.GNUTYPE_SPARSE, BLOCK, "old.png", at386=0, at398=BLOCK, at483=8 << 40) + bytes(BLOCK)
    facts = {"major": "1", "minor": "0", "name": "new.png", "realsize": str(8 << 40)}
    pax = {f"GNU.sparse.{key}": value for key, value in facts.items()}
    new = member("x.png", padded(b"1\n0\n512\n") + bytes(BLOCK), pax=pax)
    path = write(pack(old + new + member("5.png", PNG[1]) + END))
    assert read(path, work) == {"old.png": SPECIAL, "new.png": SPECIAL, "5.png": PNG[1]}


@pytest.mark.parametrize("kind", [0o120000, 0o010000, 0o020000, 0o060000, 0o140000])
def test_links_and_special_files_in_a_zip_are_a_problem(kind: int, write: Write, work: Path) -> None:
    info = zipfile.ZipInfo("cats/link.png")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    path = write(zipped([(info, b"/etc/passwd"), *PICTURES.items()]))
    assert read(path, work) == {"cats/link.png": SPECIAL, **PICTURES}


# More than there should be


@every_kind
def test_counts_and_sizes_are_capped(make: Make, write: Write, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(make(PICTURES.items()))
    assert read(path, work, Limits(members=4)) == PICTURES
    refused(path, work, "more than 3 files; split it", Limits(members=3))
    refused(path, work, "more than 0 GB; split it", Limits(total_bytes=3 * len(PNG[0])))
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", len(PNG[0]))
    path = write(make([("large.png", PNG[0] + b"\0"), ("cats/1.png", PNG[0])]))
    assert read(path, work) == {"large.png": "the file has more than 0 MB", "cats/1.png": PNG[0]}


@pytest.mark.parametrize("name", ["zeros.png", "zeros.txt"])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_tar_that_unpacks_without_end_is_refused(
    pack: Callable[[bytes], bytes], name: str, write: Write, work: Path
) -> None:
    path = write(pack(member("cats/1.png", PNG[0]) + header(tarfile.REGTYPE, 1 << 38, name) + bytes(16 << 20)))
    refused(path, work, "unpacks to more than 50 times its size.*; unpack it yourself", SMALL)
    assert (work / "spool").stat().st_size < 4 << 20


def test_what_follows_the_end_of_a_packed_tar_is_capped_too(write: Write, work: Path) -> None:
    refused(write(gzip.compress(tar(PICTURES.items()) + bytes(16 << 20))), work, "more than 50 times", SMALL)


def test_one_bomb_in_a_zip_is_a_problem_and_many_small_ones_are_refused(write: Write, work: Path) -> None:
    path = write(zipped([("bomb.png", bytes(2 << 20)), *PICTURES.items()]))
    assert read(path, work, SMALL) == {"bomb.png": "unpacks to more than 50 times its size", **PICTURES}
    path = write(zipped((f"{number}.png", bytes(1 << 18)) for number in range(32)))
    refused(path, work, "more than 50 times", SMALL)
    assert (work / "spool").stat().st_size <= 2 << 20


def overlapping(members: int, kernel: int) -> bytes:
    """Members that each hold the next one's header, quoted, and its data (Fifield, "A better zip bomb", 2019)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body, plain, directory = packer.compress(bytes(kernel)) + packer.flush(), bytes(kernel), []
    for number in reversed(range(members)):
        name = b"%06d.png" % number
        facts = struct.pack("<5H3L2H", 20, 0, 8, 0, 33, zlib.crc32(plain), len(body), len(plain), len(name), 0)
        local = b"PK\3\4" + facts + name
        directory.append((b"PK\1\2" + struct.pack("<H", 20) + facts + struct.pack("<3HL", 0, 0, 0, 0), name, len(body)))
        quoted = b"\0" + struct.pack("<2H", len(local), len(local) ^ 0xFFFF) + local
        body, plain, whole = quoted + body, local + plain, local + body
    central = b"".join(d + struct.pack("<L", len(whole) - n - len(local)) + name for d, name, n in directory)
    end = struct.pack("<4H2LH", 0, 0, members, members, len(central), len(whole), 0)
    return whole + central + b"PK\5\6" + end


def test_a_zip_of_overlapping_members_is_refused(write: Write, work: Path) -> None:
    content = overlapping(200, 1 << 20)
    with zipfile.ZipFile(io.BytesIO(content)) as bomb:
        assert sum(info.file_size for info in bomb.infolist()) > 200 << 20 > 5000 * len(content)
        assert bomb.read("000199.png") == bytes(1 << 20)
    refused(write(content), work, "made to fill disks")
    assert (work / "spool").stat().st_size == 0


def test_a_zip_with_an_endless_table_of_contents_is_refused(
    write: Write, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(zipped(PICTURES.items()))
    monkeypatch.setattr(archives, "_MAX_DIRECTORY", 100)
    refused(path, work, "too many files for a zip; split it, or pack it as tar")
    assert first_names(path, 9) == []


@plain_and_packed
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_claims_gigabytes_is_refused(
    kind: bytes, pack: Callable[[bytes], bytes], write: Write, work: Path
) -> None:
    for size in (1 << 33, 1 << 62):
        claim = header(kind, size) + bytes(24 << 20) + END
        for content in (claim, member("cats/1.png", PNG[0]) + claim):
            refused(write(pack(content)), work, "headers larger than any picture needs; pack it again")


@plain_and_packed
def test_headers_without_end_are_refused(pack: Callable[[bytes], bytes], write: Write, work: Path) -> None:
    more = struct.pack("<384s", b"1".rjust(12, b"0") * 32) + bytes(120) + b"\1" + bytes(7)
    sparse = header(tarfile.GNUTYPE_SPARSE, 0, at386=1)
    sparse = with_checksum(bytearray(sparse[:482] + b"\1" + sparse[483:]))
    chain = b"".join(header(tarfile.XHDTYPE, BLOCK) + padded(b"12 path=a.b\n") for _ in range(500))
    first = member("cats/1.png", PNG[0])
    for content in (sparse + more * 40_000, header(tarfile.XHDTYPE, 1 << 19) * 3000):
        refused(write(pack(first + content)), work, "headers larger than any picture needs|is damaged")
    refused(write(pack(first + chain + first + END)), work, "is damaged")


@plain_and_packed
def test_headers_for_all_members_are_not_gathered(pack: Callable[[bytes], bytes], write: Write, work: Path) -> None:
    def fact(number: int) -> bytes:
        return padded(b"524288 %08d=" % number + b"x" * (524288 - 17) + b"\n")

    content = b"".join(header(tarfile.XGLTYPE, 1 << 19) + fact(n) + member(f"{n}.png", PNG[0]) for n in range(50))
    path = write(pack(content + END))
    assert peak(lambda: len(read(path, work)) == 50 or pytest.fail("members are missing")) < 8 << 20


@plain_and_packed
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, b"Z"])
def test_a_header_that_points_backwards_ends_the_reading(
    kind: bytes, pack: Callable[[bytes], bytes], write: Write, work: Path
) -> None:
    for size in (-2 * BLOCK, -(1 << 80), *([-1] if kind == tarfile.REGTYPE else [])):
        path = write(pack(member("cats/1.png", PNG[0]) + header(kind, size) + bytes(24 << 20)))
        refused(path, work, "is damaged|headers larger")


def test_thousands_of_members_take_no_memory(write: Write, work: Path) -> None:
    path = write(member("cats/1.png") * 60_000 + END)
    counts = []
    taken = peak(lambda: counts.append(sum(1 for _ in read_archive(path, work / "spool"))))
    assert counts == [60_000]
    assert taken < 16 << 20  # the headers alone would be 25; the table of interned names grows by up to 8


# Damage


@every_kind
def test_truncation_anywhere_is_refused(make: Make, write: Write, work: Path) -> None:
    content = make(PICTURES.items())
    end = len(content) - (len(END) - BLOCK if make is tar else 0)  # one of its last two blocks is enough
    for cut in (*range(0, end, 97), end - 1):
        path = write(content[:cut])
        with pytest.raises(ConfigError, match="; get or pack it again"):
            read(path, work)
        assert set(first_names(path, 9)) <= set(PICTURES)
    assert read(write(content[:end]), work) == PICTURES


@every_kind
def test_a_changed_byte_anywhere_is_refused_or_a_problem(make: Make, write: Write, work: Path) -> None:
    content = make(PICTURES.items())
    rng = random.Random(7)
    for place in [*range(min(64, len(content))), *(rng.randrange(len(content)) for _ in range(150))]:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        path = write(bytes(changed))
        is_archive(path)
        first_names(path, 9)
        try:
            found = read(path, work)
        except ConfigError:
            continue
        if make is not tar:  # which has no checksums of contents
            assert all(isinstance(value, str) or value in PNG for value in found.values())
        if make not in (tar, zipped, stored):
            assert found == PICTURES


def test_a_broken_header_within_a_tar_is_no_end(write: Write, work: Path) -> None:
    content = bytearray(tar(PICTURES.items()))
    content[len(member("cats/1.png", PNG[0])) + 3] ^= 1
    refused(write(bytes(content)), work, "breaks off after 1 files; get or pack it again")


def patched(content: bytes, name: bytes, place: int, value: bytes) -> bytes:
    """A zip with other bytes in one member's line of its table of contents."""
    start = content.rindex(name) - 46 + place
    return content[:start] + value + content[start + len(value) :]


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (16, b"\0\1\2\3", "Bad CRC-32"),
        (8, b"\1\0", "encrypted"),
        (8, b"\x41\0", "encrypted"),
        (8, b"\x20\0", "compressed patched data"),
        (10, b"\x63\0", "compression method is not supported"),
        (10, b"\x0c\0", "cannot be unpacked"),  # bzip2
        (10, b"\x0e\0", "cannot be unpacked"),  # lzma
        (20, b"\1\0\0\0", "cut off|cannot be unpacked"),  # its packed size
        (24, b"\1\0\0\0", "Bad CRC-32"),  # its size
        (24, b"\xff\xff\0\0", "cut off|Bad CRC-32"),
        (42, b"\5\0\0\0", "Bad magic number"),  # where it lies
        (42, b"\0\0\0\x7f", "cannot be unpacked"),
        (46, b"\x80", "differ"),  # its name
    ],
)
def test_a_broken_member_of_a_zip_is_a_problem_and_the_others_are_read(
    place: int, value: bytes, problem: str, write: Write, work: Path
) -> None:
    path = write(patched(zipped(PICTURES.items()), b"cats/two.JPG", place, value))
    entries = list(read_archive(path, work / "spool"))
    assert re.search(problem, entries[1].problem)
    found = list(contents(entries, work).values())
    assert [found[0], *found[2:]] == [PNG[0], PNG[2], PNG[3]]
    path = write(patched(zipped(list(PICTURES.items())[:2]), b"cats/two.JPG", place, value))
    assert [bool(entry.problem) for entry in read_archive(path, work / "spool")] == [False, True]
    assert (work / "spool").stat().st_size == len(PNG[0])


def test_a_broken_table_of_contents_is_refused(write: Write, work: Path) -> None:
    content = zipped([("cats/two.JPG", PNG[0])])
    for place, value in ((0, b"\0"), (6, b"\xff"), (8, b"\0\x08")):  # signature, version, a name in UTF-8
        changed = patched(content.replace(b"cats", b"\xff\xff\xff\xff"), b"/two.JPG", place - 4, value)
        refused(write(changed), work, "is damaged")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.start_dir
    for size in (0xFFFFFFFF, 1 << 31, start + 1000):
        refused(write(content[:-10] + struct.pack("<L", size) + content[-6:]), work, "is damaged")


def test_a_broken_archive_of_cifar_batches_is_refused(write: Write, work: Path) -> None:
    batches = [("cifar-10-batches-py/batches.meta", PNG[0]), ("cifar-10-batches-py/data_batch_1", PNG[1])]
    whole = gzip.compress(tar([*batches, *((f"{number}.png", PNG[2]) for number in range(20))]))
    for content in (zipped(batches), tar(batches), gzip.compress(tar(batches)), whole[:-3000]):
        with pytest.raises(ConfigError, match="; "):
            list(opened(write(content), work).entries())


def test_no_room_for_the_pictures_is_not_called_damage(write: Write) -> None:
    for make in KINDS.values():
        if make is not tar:
            with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\); make room"):
                list(read_archive(write(make(PICTURES.items())), Path("/dev/full")))


# Again


@every_kind
def test_an_archive_is_unpacked_once(make: Make, write: Write, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(make(PICTURES.items()))
    first = list(opened(path, work).entries())
    files = {file: file.stat() for kind in ("spool", "entries") for file in work.glob(f"{kind}-*")}
    assert len(files) == 2
    with monkeypatch.context() as patch:
        patch.setattr(archives, "read_archive", lambda *_: pytest.fail("it is read again"))
        again = opened(path, work)
        assert list(again.entries()) == list(again.entries()) == first
    assert {file: file.stat() for file in files} == files
    assert contents(first, work) == PICTURES


@every_kind
def test_a_changed_archive_is_read_anew(make: Make, write: Write, work: Path) -> None:
    """Even where its names, sizes and times stay the same, no entry may pass for one that was read before."""
    old, new = (b"P5 2 1 255\n" + pixels for pixels in (b"ab", b"ba"))
    path = write(make([("cats/1.pgm", old)]))
    before = list(opened(path, work).entries())
    assert contents(before, work) == {"cats/1.pgm": old}
    os.utime(write(make([("cats/1.pgm", new)])), ns=(1, 1))
    after = list(opened(path, work).entries())
    assert contents(after, work) == {"cats/1.pgm": new}
    assert before[0].stamp != after[0].stamp
    cut = make([("cats/1.pgm", old)])[: -len(END) - 2 if make is tar else -2]
    refused(write(cut), work, "is damaged")
