"""The BentoML service: ``POST /inpaint`` repairs a picture, ``GET /model`` says what is served, ``/`` is the page."""

from __future__ import annotations

from pathlib import Path

import bentoml
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from components.inpainting.images import encode_png
from serving import page
from serving.engine import Engine
from serving.http import Problem, decode_pair, problem_response, read_pair, refusal_response

MAX_CONCURRENT = 2  # repairs at a time; each takes all cores, and memory with its picture
MODEL_FOLDER = Path(__file__).parent.parent / "model"


async def inpaint(request: Request) -> Response:
    """Repair the multipart file ``image`` where the multipart file ``mask`` is white; answers PNG.

    The picture is read as 8-bit RGB, upright; every pixel outside the mask comes back bit for bit.
    """
    image, mask = await read_pair(request)
    engine: Engine = request.app.state.engine
    content = await to_thread.run_sync(_repair, engine, image, mask, limiter=request.app.state.limiter)
    return Response(content, media_type="image/png", headers=_headers(engine))


async def describe(request: Request) -> JSONResponse:
    """What is served: version, digests, scores."""
    return JSONResponse(request.app.state.engine.provenance)


def _repair(engine: Engine, image: bytes, mask: bytes) -> bytes:
    picture, holes = decode_pair(image, mask)
    return encode_png(engine.inpaint(picture, holes))


def _headers(engine: Engine) -> dict[str, str]:
    return {
        "X-Model-Version": str(engine.provenance["version"]),
        "X-Model-Digest": str(engine.provenance["digest"]),
        "X-Run-Id": str(engine.provenance["run_id"]),
    }


app = Starlette(
    routes=[
        *page.routes(),
        Route("/inpaint", inpaint, methods=["POST"]),
        Route("/model", describe, methods=["GET"]),
    ],
    exception_handlers={Problem: problem_response, HTTPException: refusal_response},
)


@bentoml.service(name="kintsugi", workers=1, traffic={"timeout": 60})
@bentoml.asgi_app(app, path="/")
class KintsugiService:
    """Serves the generator in the Bento's ``model`` folder."""

    def __init__(self) -> None:
        app.state.engine = Engine.open(MODEL_FOLDER)
        app.state.limiter = CapacityLimiter(MAX_CONCURRENT)
