"""What a picture's bytes claim, read before a decoder sees them: small files may be made to cost much.

Pillow walks through the chunks of a PNG and the segments of a JPEG in Python, and WebP's decoder reserves
memory for its canvas when it is opened; so their number and size are looked at first. Anything else, and
whatever is malformed, is left to the decoder.
"""

from __future__ import annotations

import re

from components.inpainting.errors import ImageError, TooLargeError, too_many_pixels

MAX_SCANS = 100
"""Of a JPEG; every scan costs a pass over all pixels, however few bytes it has."""
MAX_CHUNKS = 10_000
"""Chunks of a PNG, or segments of a JPEG with the fill bytes between them, before its pixels."""
MAX_TEXTS = 32
"""Text chunks of a PNG, each of which may unpack to a megabyte."""

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_SEGMENT = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_SOLITARY = frozenset({0x00, 0x01, 0xFF, *range(0xD0, 0xD9)})  # markers without a length
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"
_ANIMATED = 0x02


def check_header(content: bytes, max_pixels: int) -> None:
    """Raise ``ImageError`` for a PNG, JPEG or WebP that is made to be costly or claims more than ``max_pixels``."""
    if content.startswith(_PNG):
        _check_png(content, max_pixels)
    elif content.startswith(_JPEG):
        _check_jpeg(content)
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        _check_webp(content, max_pixels)


def _check_png(content: bytes, max_pixels: int) -> None:
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    if width * height > max_pixels:
        raise too_many_pixels(max_pixels)
    at, chunks, texts = len(_PNG), 0, 0
    while at + 8 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        chunks, texts = chunks + 1, texts + (kind in _TEXTS)
        if chunks > MAX_CHUNKS or texts > MAX_TEXTS:
            limit = f"{MAX_TEXTS} text" if texts > MAX_TEXTS else f"{MAX_CHUNKS}"
            raise TooLargeError(f"the PNG has more than {limit} chunks; re-export it")
        at += 12 + length


def _check_jpeg(content: bytes) -> None:
    if _steps(content) > MAX_CHUNKS:
        raise TooLargeError(f"the JPEG has more than {MAX_CHUNKS} segments before its pixels; re-export it")
    if _scans(content) > MAX_SCANS:
        raise ImageError(f"the JPEG has more than {MAX_SCANS} scans; re-export it")


def _steps(content: bytes) -> int:
    """Steps that a reader takes to a JPEG's pixels, counted to one more than ``MAX_CHUNKS``."""
    at, count = 2, 0
    while count <= MAX_CHUNKS and at + 1 < len(content):
        count += 1
        if content[at] != 0xFF or content[at + 1] in _SOLITARY:
            at += 1
        elif content[at + 1 : at + 2] == _START_OF_SCAN:
            break
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return count


def _scans(content: bytes) -> int:
    """The scans of a JPEG, counted to one more than ``MAX_SCANS``; what follows the picture, e.g. a video, is not."""
    count, at = 0, 2
    while count <= MAX_SCANS and (segment := _SEGMENT.search(content, at)) and segment[1] != _END_OF_IMAGE:
        count += segment[1] == _START_OF_SCAN
        at = segment.end() + int.from_bytes(content[segment.end() : segment.end() + 2], "big")
    return count


def _check_webp(content: bytes, max_pixels: int) -> None:
    if _webp_pixels(content) > max_pixels:
        raise too_many_pixels(max_pixels)
    if content[12:16] == b"VP8X" and content[20] & _ANIMATED and content.count(b"ANMF") > 1:
        raise ImageError("the file holds several frames; send one still picture")


def _webp_pixels(content: bytes) -> int:
    """Pixels of the canvas, 0 where the header is cut off or unknown to us."""
    kind = content[12:16] if len(content) >= 30 else b""
    if kind == b"VP8X":
        return (int.from_bytes(content[24:27], "little") + 1) * (int.from_bytes(content[27:30], "little") + 1)
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return ((bits & 0x3FFF) + 1) * (((bits >> 14) & 0x3FFF) + 1)
    if kind == b"VP8 ":
        return (int.from_bytes(content[26:28], "little") & 0x3FFF) * (int.from_bytes(content[28:30], "little") & 0x3FFF)
    return 0
