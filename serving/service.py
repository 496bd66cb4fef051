"""The BentoML service: ``POST /inpaint`` repairs a picture, ``GET /model`` says what is served."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

import bentoml
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from components.inpainting.images import Bytes, encode_png
from serving.admission import Admission, Busy, Overdue
from serving.connections import guard_connections
from serving.engine import Engine
from serving.http import Problem, decode_pair, problem_response, read_pair, refusal_response

USAGE = """Kintsugi mends pictures.

POST /inpaint  multipart files 'image' and 'mask' (PNG, JPEG or WebP, of one size; white = hole) to PNG:
               curl -F image=@photo.png -F mask=@mask.png localhost:3000/inpaint -o out.png
GET  /model    what is served: version, digests, scores
"""
MODEL_FOLDER = Path(__file__).parent.parent / "model"


async def inpaint(request: Request) -> Response:
    """Repair the multipart file ``image`` where the multipart file ``mask`` is white; answers PNG.

    The picture is read as 8-bit RGB, upright; every pixel outside the mask comes back bit for bit.
    """
    image, mask = await read_pair(request)
    engine: Engine = request.app.state.engine
    picture, holes = await to_thread.run_sync(decode_pair, image, mask)
    try:
        async with request.app.state.admission.slot(holes.size):
            content = await to_thread.run_sync(_repair, engine, picture, holes)
    except Busy as busy:
        detail = f"Too many repairs wait; try again in {busy.retry_after} s."
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, detail) from None
    except Overdue:
        raise Problem(HTTPStatus.GATEWAY_TIMEOUT, "The repair did not begin in time; try again.") from None
    return Response(content, media_type="image/png", headers=_headers(engine))


async def describe(request: Request) -> JSONResponse:
    """What is served: version, digests, scores."""
    return JSONResponse(request.app.state.engine.provenance)


async def usage(request: Request) -> PlainTextResponse:
    """How to call the service; stands in the place of BentoML's page, which loads from the network."""
    return PlainTextResponse(USAGE)


def _repair(engine: Engine, picture: Bytes, holes: Bytes) -> bytes:
    return encode_png(engine.inpaint(picture, holes))


def _headers(engine: Engine) -> dict[str, str]:
    return {
        "X-Model-Version": str(engine.provenance["version"]),
        "X-Model-Digest": str(engine.provenance["digest"]),
        "X-Run-Id": str(engine.provenance["run_id"]),
    }


app = Starlette(
    routes=[
        Route("/", usage, methods=["GET"]),
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
        app.state.admission = Admission()


guard_connections()  # BentoML starts uvicorn right after it has loaded this module, and lets nobody between
