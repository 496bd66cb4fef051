"""The description is checked against the server: schemathesis makes requests from it, good and bad ones."""

from __future__ import annotations

import io

from PIL import Image
from schemathesis.config import ChecksConfig, PositiveDataAcceptanceConfig, SchemathesisConfig  # noqa: F401

SIDE = 160  # so that no mask that is grown covers all of it


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, lossless=True)
    return buffer.getvalue()
