"""How to call the service, at ``/``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

USAGE = """Kintsugi mends pictures.

POST /inpaint      a form with the file 'image' (PNG, JPEG or WebP) and, if you have one, 'mask' (white = hole):
                   curl -F image=@photo.png -F mask=@mask.png localhost:3000/inpaint -o out.png
                   more fields: format, quality, grow_mask, feather, output; JSON with base64 works as well
GET  /model        what is served: version, digests, scores, limits
GET  /openapi.json all of it, for machines
GET  /metrics      for Prometheus; /livez and /readyz for probes
"""


def routes() -> list[BaseRoute]:
    """The routes of the page at ``/``."""
    return [Route("/", _usage, methods=["GET"])]


async def _usage(request: Request) -> PlainTextResponse:
    return PlainTextResponse(USAGE)
