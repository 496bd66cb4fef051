"""The endpoint as an ASGI application: its routes, and what stands around all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from serving.admission import Admission, Busy, Overdue
from serving.answers import answer_repair, describe_served, model_headers
from serving.auth import Keys
from serving.bodies import read_asked
from serving.metrics import Metrics
from serving.models import Models, Served
from serving.observing import RECORD, Observed, Record, given_up_with_client
from serving.openapi import describe_api
from serving.page import routes as page_routes
from serving.problems import Problem, problem_response
from serving.repair import open_files, repair
from serving.settings import ServingSettings

Result = TypeVar("Result")
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_EXPOSED = [
    "Server-Timing",
    "Retry-After",
    "X-Mask-Source",
    "X-Model-Digest",
    "X-Model-Version",
    "X-Request-Id",
    "X-Run-Id",
]


@dataclass
class Parts:
    """What the routes work with."""

    models: Models
    settings: ServingSettings
    keys: Keys
    admission: Admission = field(default_factory=Admission)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.models.on_switch = self._take_over
        self._take_over(self.models.current)
        self.metrics.attach(self.models, self.admission)

    def _take_over(self, served: Served) -> None:
        self.admission.fit(served.model.parallel)
        for engine in filter(None, (served.model, served.blind)):
            engine.on_batch = self.metrics.batches.observe


def build_app(parts: Parts) -> Starlette:
    """The application around its parts."""
    routes = [
        Route("/inpaint", inpaint, methods=["POST"]),
        Route("/model", describe_model, methods=["GET"]),
        Route("/openapi.json", describe, methods=["GET"]),
        Route("/metrics", measure, methods=["GET"]),
        *(Route(path, alive, methods=["GET"]) for path in ("/livez", "/readyz", "/healthz")),
        *page_routes(),
    ]
    paths = frozenset(route.path for route in routes if isinstance(route, Route))
    middleware = [Middleware(Observed, parts.metrics, paths, parts.settings.timeout_seconds)]
    if parts.settings.origins:
        middleware.append(_cors(parts.settings.origins))
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={Problem: _refuse, HTTPException: _refuse_route, Busy: _refuse_busy, Overdue: _refuse_late},
    )
    app.state.parts = parts
    return app


async def inpaint(request: Request) -> Response:
    """Repair the picture of a request, see ``docs/serving.md``."""
    parts, record = _parts(request), _record(request)
    record.headers |= model_headers(parts.models.current.model)
    parts.keys.check(request.headers)
    parts.admission.check()
    asked = await read_asked(request, parts.settings.max_body_bytes)
    with record.stage("decode"):
        opened = await to_thread.run_sync(open_files, asked, parts.settings.max_pixels)
    parts.metrics.megapixels.observe(opened.pixels / 1e6)
    with parts.models.use() as served, given_up_with_client(request.receive, record):
        async with AsyncExitStack() as slot:
            with record.stage("queue"):
                await slot.enter_async_context(parts.admission.slot(opened.pixels))
            repaired = await _to_its_end(to_thread.run_sync(repair, opened, served, record))
        return answer_repair(repaired, record, request.headers)


async def describe_model(request: Request) -> JSONResponse:
    """What is served: version, digests, scores, since when."""
    parts = _parts(request)
    parts.keys.check(request.headers)
    return JSONResponse(describe_served(parts.models, parts.settings))


async def describe(request: Request) -> JSONResponse:
    """The OpenAPI description."""
    parts = _parts(request)
    return JSONResponse(describe_api(keys=parts.keys.required))


async def measure(request: Request) -> Response:
    """What Prometheus reads."""
    return Response(_parts(request).metrics.render(), headers={"Content-Type": PROMETHEUS})


async def alive(request: Request) -> PlainTextResponse:
    """For probes: there is a model, and the server answers."""
    return PlainTextResponse("ok\n")


def _cors(origins: list[str]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-Id"],
        expose_headers=_EXPOSED,
    )


def _refuse(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problem_response(problem, _record(request).request_id)


def _refuse_route(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, HTTPException)
    detail = f"{request.method} {request.url.path[:200]} is not served; POST /inpaint or GET /model."
    return _refuse(request, Problem(refusal.status_code, detail, refusal.headers))


def _refuse_busy(request: Request, busy: Exception) -> Response:
    assert isinstance(busy, Busy)
    detail = f"Too many repairs wait; try again in {busy.retry_after} s."
    return _refuse(request, Problem(429, detail, {"Retry-After": str(busy.retry_after)}))


def _refuse_late(request: Request, overdue: Exception) -> Response:
    return _refuse(request, Problem(504, "The repair did not begin in time; try again, or send a smaller picture."))


async def _to_its_end(work: Awaitable[Result]) -> Result:
    """Await work in a thread, to its end even when nobody waits any more: it keeps what it runs in until then."""
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        future.cancelled() or future.exception()  # seen: that it was abandoned is no news
        raise


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _record(request: Request) -> Record:
    record: Record = getattr(request.state, RECORD)
    return record
