"""Around every request: an id, a deadline, a line in the log, metrics, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import Metrics
from serving.problems import Problem, problem_response

RECORD = "kintsugi_record"
"""Where a request's record is found in its state."""

CLIENT_GONE = 499
"""The status, in log and metrics, of requests whose client did not wait for the answer."""

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOG = logging.getLogger("kintsugi")


@dataclass
class Record:
    """What becomes known of a request on its way: seconds by stage, facts for the log, headers for the answer."""

    request_id: str
    path: str = "other"
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    given_up: bool = False
    """The deadline passed, or the client is gone: nobody waits for the answer any more."""

    def wanted(self) -> bool:
        """Whether somebody waits for the answer."""
        return not self.given_up

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage; what is measured twice adds up."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - began

    def milliseconds(self) -> dict[str, float]:
        """The stages in milliseconds."""
        return {name: round(seconds * 1000, 1) for name, seconds in self.stages.items()}


class Observed:
    """ASGI middleware: gives every request a ``Record``, answers what failed or took too long, logs and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str], timeout: float) -> None:
        self._app, self._metrics, self._paths, self._timeout = app, metrics, paths, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = Record(_request_id(Headers(scope=scope)))
        record.path = scope["path"] if scope["path"] in self._paths else "other"
        scope.setdefault("state", {})[RECORD] = record
        try:
            await self._answer(scope, _counted(receive, record), _completed(send, record), record)
        finally:
            self._report(scope, record)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, record: Record) -> None:
        async def send_in_time(message: Message) -> None:
            if record.wanted():
                await send(message)

        task = asyncio.ensure_future(self._app(scope, receive, send_in_time))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, whoever waits for it
        try:
            await asyncio.wait({task}, timeout=self._timeout)
            if record.given_up:
                record.status = record.status or CLIENT_GONE
                return
            if record.status or task.done():
                await task
                return
        except Exception:
            _LOG.exception("request failed", extra={"request_id": record.request_id, "path": record.path})
            if not record.status:
                detail = f"The server failed; its log says why under the request id {record.request_id}."
                await problem_response(Problem(500, detail), record.request_id)(scope, receive, send)
            return
        except BaseException:
            task.cancel()
            raise
        record.given_up = True
        task.cancel()  # what a thread computes goes on to its next tile, and holds its slot until then
        detail = f"The request was not answered within {self._timeout:g} s; send a smaller picture, or try again."
        await problem_response(Problem(504, detail), record.request_id)(scope, receive, send)

    def _report(self, scope: Scope, record: Record) -> None:
        seconds = time.perf_counter() - record.started
        self._metrics.answered(record.path, record.status, seconds, record.stages)
        if record.path not in ("/livez", "/readyz", "/healthz", "/metrics"):
            _LOG.info(
                "request",
                extra={
                    "request_id": record.request_id,
                    "method": scope["method"],
                    "path": scope["path"][:200],
                    "status": record.status,
                    "bytes_in": record.bytes_in,
                    "bytes_out": record.bytes_out,
                    "duration_ms": round(seconds * 1000, 1),
                    "stages_ms": record.milliseconds(),
                    **record.facts,
                },
            )


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def _counted(receive: Receive, record: Record) -> Receive:
    async def counted() -> Message:
        message = await receive()
        record.bytes_in += len(message.get("body", b""))
        return message

    return counted


def _completed(send: Send, record: Record) -> Send:
    """``send`` that adds the record's headers, and remembers the status and the size."""

    async def complete(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = record.request_id
            for name, value in record.headers.items():
                headers[name] = value
            if record.stages:
                headers["Server-Timing"] = ", ".join(f"{n};dur={ms}" for n, ms in record.milliseconds().items())
        record.bytes_out += len(message.get("body", b""))
        await send(message)

    return complete


@contextmanager
def given_up_with_client(receive: Receive, record: Record) -> Iterator[None]:
    """Cancel the task that this is called in as soon as the client is gone; the request has to be read whole before."""
    task = asyncio.current_task()
    assert task is not None

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if record.wanted():
            record.given_up = True
            task.cancel()

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watcher.cancel()
