"""Pictures as broken disks and strangers make them: cut, corrupted, and small files that claim to be huge ones."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.inpainting.headers import MAX_SCANS
from components.inpainting.images import (
    COLLECTION_FORMATS,
    MAX_PIXELS,
    Bytes,
    ImageError,
    decode_image,
    decode_mask,
    decode_photograph,
)

CORRUPTIONS = 600
HEIGHT, WIDTH = 20, 24

EXIF = Image.Exif()
EXIF[0x0112] = 6
VARIANTS: dict[str, tuple[str, str, dict[str, object]]] = {
    **{kind: (kind, "RGB", {}) for kind in COLLECTION_FORMATS},
    "JPEG, progressive, CMYK, turned": ("JPEG", "CMYK", {"progressive": True, "exif": EXIF}),
    "PNG, palette, see-through": ("PNG", "P", {"transparency": bytes(range(256)), "exif": EXIF}),
    "WEBP, lossless, see-through": ("WEBP", "RGBA", {"lossless": True}),
    "TIFF, compressed, turned": ("TIFF", "RGB", {"compression": "tiff_adobe_deflate", "exif": EXIF}),
    "AVIF, see-through, turned": ("AVIF", "RGBA", {"exif": EXIF}),
    "PPM, float": ("PPM", "F", {}),
}
DECODERS: dict[str, Callable[[bytes], Bytes]] = {
    "image": lambda content: decode_image(content, formats=COLLECTION_FORMATS),
    "mask": lambda content: decode_mask(content, formats=COLLECTION_FORMATS),
    "photograph": lambda content: decode_photograph(content, at_least=HEIGHT).pixels,
}
Outcome = tuple[int, ...] | str
"""The shape of a decoded picture, or the sentence with which it was refused."""


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(params=VARIANTS)
def content(request: pytest.FixtureRequest, photographs: list[Bytes]) -> bytes:
    """A small valid file of every format, and of the harder kinds within them."""
    kind, mode, options = VARIANTS[request.param]
    picture = Image.fromarray(photographs[0][100 : 100 + HEIGHT, 150 : 150 + WIDTH])
    return encoded((picture.convert("L") if mode == "F" else picture).convert(mode), kind, **options)


def outcomes(content: bytes) -> list[Outcome]:
    """What every decoder makes of ``content``; any other exception than ``ImageError`` fails the test."""
    found: list[Outcome] = []
    for name, decode in DECODERS.items():
        try:
            pixels = decode(content)
        except ImageError as error:
            found.append(str(error))
        else:
            assert pixels.dtype == np.uint8 and pixels.size > 0
            assert pixels.shape[2:] == (() if name == "mask" else (3,))
            assert name != "mask" or pixels.max() <= 1
            found.append(pixels.shape)
    for sentence in filter(refused, found):
        assert re.fullmatch(r"[^\n]+; [a-z][^\n]+", str(sentence)), sentence
        assert "damaged ()" not in str(sentence)
    return found


def refused(outcome: Outcome) -> bool:
    return isinstance(outcome, str)


def printed(warnings: pytest.WarningsRecorder) -> set[str]:
    return {str(warning.message) for warning in warnings if issubclass(warning.category, (UserWarning, RuntimeWarning))}


def test_a_file_cut_anywhere_is_refused_or_whole(content: bytes, recwarn: pytest.WarningsRecorder) -> None:
    whole = outcomes(content)
    assert [sorted(shape[:2]) for shape in whole] == [[HEIGHT, WIDTH]] * 3
    for end in range(len(content)):
        cut = outcomes(content[:end])
        assert all(refused(outcome) or outcome == shape for outcome, shape in zip(cut, whole, strict=True)), end
        assert all(map(refused, cut)) or end > len(content) // 2
    assert not printed(recwarn)


def test_a_corrupted_file_is_refused_or_a_picture(content: bytes, recwarn: pytest.WarningsRecorder) -> None:
    chance, refusals = random.Random(len(content)), 0
    for _ in range(CORRUPTIONS):
        corrupted = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            # half of the corruptions hit the header, where they do most harm
            at = chance.randrange(chance.choice([len(content), min(len(content), 200)]))
            corrupted[at] = chance.choice(
                [corrupted[at] ^ 1 << chance.randrange(8), chance.randrange(256), 0, 127, 255]
            )
        refusals += any(map(refused, outcomes(bytes(corrupted))))
    assert refusals > CORRUPTIONS // 20
    assert not printed(recwarn)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, pixels: bytes, extra: bytes = b"", *, bits: int = 8, colour: int = 2) -> bytes:
    """``pixels`` are the deflated rows, ``extra`` is whole chunks before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def gif(width: int, height: int, frame: tuple[int, int], frames: int = 1) -> bytes:
    """Frames of one black pixel, whatever size they claim."""
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return b"GIF89a" + screen + (b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\0") * frames + b";"


def webp(side: int) -> bytes:
    """The header of an extended WebP with nothing behind it."""
    sides = struct.pack("<I", side - 1)[:3] * 2
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0x10) + sides


def tiff(width: int, height: int, data: bytes, *, compression: int = 1, tile: int = 0, pages: int = 1) -> bytes:
    """Grey TIFF pages, each in one strip (or one square tile) that begins after the first page's directory."""
    tags = {256: width, 257: height, 258: 8, 259: compression, 262: 1}
    tags |= {322: tile, 323: tile, 324: 0, 325: len(data)} if tile else {273: 0, 278: height, 279: len(data)}
    size = 2 + 12 * len(tags) + 4
    tags[324 if tile else 273] = 8 + size
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in tags)
    later = [8 + size + len(data) + size * page for page in range(pages - 1)]
    links = [struct.pack("<I", offset) for offset in [*later, 0]]
    return b"II*\0\x08\0\0\0" + entries + links[0] + data + b"".join(entries + link for link in links[1:])


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again, each time for all pixels."""
    legal = encoded(Image.new("L", (side, side), 77), "JPEG", progressive=True)
    last = legal[legal.rindex(b"\xff\xda") : -2]
    return legal[:-2] + last * scans + b"\xff\xd9"


def bombs() -> dict[str, bytes]:
    """Small files that would take gigabytes or minutes if their claims were believed."""
    squeezed = zlib.compress(bytes(1 << 28), 1)
    tiny = encoded(Image.new("L", (8, 8)), "AVIF")
    return {
        "png size": png(60000, 60000, b""),
        "png text": png(8, 8, b"", chunk(b"zTXt", b"a\0\0" + squeezed)),
        "png international text": png(8, 8, b"", chunk(b"iTXt", b"a\0\1\0\0\0" + squeezed)),
        "png profile": png(8, 8, b"", chunk(b"iCCP", b"a\0\0" + squeezed)),
        "png many texts": png(8, 8, b"", chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 300),
        "png pixels missing": png(8, 8, b""),
        "gif size": gif(65535, 65535, (65535, 65535)),
        "gif frame beyond the screen": gif(1, 1, (65535, 65535)),
        "gif pixels missing": gif(7000, 7000, (7000, 7000)),
        "gif frames": gif(1, 1, (1, 1), 300_000),
        "webp size": webp(16384),
        "tiff size": tiff(60000, 60000, bytes(100)),
        "tiff pixels missing": tiff(7000, 7000, bytes(100), compression=8),
        "tiff tile": tiff(8, 8, squeezed, compression=8, tile=1 << 14),
        "tiff pages": tiff(1, 1, b"\0", pages=60_000),
        "bmp size": bmp(60000, 60000),
        "bmp upside down": bmp(60000, -60000),
        "bmp pixels missing": bmp(7000, 7000),
        "ppm size": b"P6 60000 60000 255\n" + bytes(50),
        "ppm plain": b"P3 7000 7000 255\n" + b"0 " * 50,
        "ppm digits": b"P6 " + b"9" * 5000 + b" 8 255\n",
        "jpeg size": encoded(Image.new("L", (8, 8)), "JPEG").replace(b"\0\x08\0\x08", b"\xff\0\xff\0"),
        "jpeg scans": many_scans(4000, 2000),
        "avif size": tiny.replace(struct.pack(">II", 8, 8), struct.pack(">II", 60000, 60000)),
    }


def peak() -> float:
    """The most memory this process has held, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def measure(folder: str) -> None:
    """Decode every file of a folder and print what came of it; runs in a process of its own."""
    for path in sorted(Path(folder).iterdir()):
        content, before, start = path.read_bytes(), peak(), time.perf_counter()
        results = outcomes(content)
        print(json.dumps([path.name, results, time.perf_counter() - start, peak() - before]))


def measured(folder: Path, files: dict[str, bytes]) -> list[tuple[str, list[Outcome], float, float]]:
    """Name, outcomes, seconds and MiB of every file."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    code = f"from tests.test_malformed_images import measure; measure({str(folder)!r})"
    command, root = [sys.executable, "-c", code], Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bombs_are_refused_fast_and_in_little_memory(tmp_path: Path) -> None:
    files = bombs()
    results = measured(tmp_path / "bombs", files)
    assert {name for name, *_ in results} == set(files)
    for name, decoded, seconds, mebibytes in results:
        assert len(files[name]) < 10_000_000
        assert all(map(refused, decoded)), (name, decoded)
        assert seconds < 10, name
        assert mebibytes < 100, name
        if name.endswith(("size", "screen", "tile", "upside down")) and not name.startswith("avif"):
            assert all("more than 50 megapixels; scale it down" in str(outcome) for outcome in decoded), (name, decoded)
        if name.endswith(("frames", "pages")):
            assert all("several frames" in str(outcome) for outcome in decoded), (name, decoded)


def test_a_progressive_jpeg_may_have_many_scans_but_not_thousands() -> None:
    legal = many_scans(64, 0).count(b"\xff\xda")
    assert decode_image(many_scans(64, MAX_SCANS - legal)).shape == (64, 64, 3)
    with pytest.raises(ImageError, match="more than 100 scans; re-export it"):
        decode_image(many_scans(64, MAX_SCANS - legal + 1))
    with_a_video = many_scans(64, 0) + b"\xff\xda" * 1000
    assert decode_image(with_a_video).shape == (64, 64, 3)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_largest_legal_picture_takes_bounded_memory(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5) // 1000 * 1000
    layouts = {"grey of 16 bits": (2, 16, 0), "see-through": (4, 8, 6)}
    files = {
        name: png(side, side, zlib.compress((b"\0" + b"\x80" * (side * size)) * side, 1), bits=bits, colour=colour)
        for name, (size, bits, colour) in layouts.items()
    }
    results = measured(tmp_path / "large", files)
    assert {name for name, *_ in results} == set(files)
    for name, decoded, _, mebibytes in results:
        assert len(files[name]) < 1_000_000
        assert [list(shape) for shape in decoded] == [[side, side, 3], [side, side], [side // 8, side // 8, 3]]
        assert mebibytes < 1100, name
