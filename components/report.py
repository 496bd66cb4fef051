"""Self-contained HTML pages: no network, no script, pictures inline, legible in a sandboxed iframe."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.inpainting.images import Bytes, encode_png


def render(template: str, **content: Any) -> str:
    """Render ``templates/<template>``; a name that is missing from ``content`` raises."""
    return _environment().get_template(template).render(**content)


def data_image(picture: Bytes) -> str:
    """A uint8 ``H,W,3`` picture as a ``data:`` URI."""
    return "data:image/png;base64," + base64.b64encode(encode_png(picture)).decode()


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
