"""A lossless PNG encoder for servers: ten times as fast as Pillow's default at about the same size.

Every row is stored as its difference from the row above (the filter "Up", PNG specification, section 9.2), found by
numpy for many rows at once, and deflated by Intel's ISA-L at its first level.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from components.inpainting.images import Bytes

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {1: 0, 3: 2, 4: 6}  # channels to colour type
_UP = 2
_STRIP = 1 << 20  # bytes filtered at a time


def encode(image: Bytes, icc: bytes = b"") -> bytes:
    """Encode uint8 ``H,W`` (grey), ``H,W,3`` (RGB) or ``H,W,4`` (RGBA), with an ICC profile where one is given."""
    height, width = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    profile = _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)) if icc else b""
    body = _deflate(np.ascontiguousarray(image).reshape(height, width * channels))
    return b"".join([_SIGNATURE, _chunk(b"IHDR", header), profile, _chunk(b"IDAT", body), _chunk(b"IEND", b"")])


def _deflate(rows: Bytes) -> bytes:
    from isal import isal_zlib

    height, length = rows.shape
    step = max(1, _STRIP // length)
    compressor, parts = isal_zlib.compressobj(1), []
    for top in range(0, height, step):
        strip = rows[top : top + step]
        filtered = np.empty((len(strip), 1 + length), np.uint8)
        filtered[:, 0] = _UP
        filtered[0, 1:] = strip[0] - rows[top - 1] if top else strip[0]
        np.subtract(strip[1:], strip[:-1], out=filtered[1:, 1:])
        parts.append(compressor.compress(filtered))
    return b"".join([*parts, compressor.flush()])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
