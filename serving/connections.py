"""Connections that keep nobody waiting: slow clients are cut off, and a server that stops answers what it has begun.

Uvicorn, which BentoML's workers run, waits for headers and bodies for ever. Its protocol is replaced by one with
deadlines; ``guard_connections`` has to be called before the server starts.
"""

from __future__ import annotations

import asyncio
import resource
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import uvicorn.config
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.problems import Problem, problem_response

RECEIVE_SECONDS = 9.0
"""In which a new connection has to send its first request, and a request has to arrive from its first byte on."""
BYTES_PER_SECOND = 64 * 1024
"""A body that comes in at least this fast may take longer, to ``RECEIVE_AT_MOST``."""
RECEIVE_AT_MOST = 60.0
READ_SECONDS = 10.0
"""A client that reads nothing of its answer for so long is cut off."""
GOODBYE_SECONDS = 0.5
"""A server that stops still takes what comes in on an idle connection for so long, and answers it."""
MAX_HEADER_BYTES = 32 * 1024
MAX_FILES = 65_536


def guard_connections(door: Callable[[ASGIApp], ASGIApp] | None = None) -> None:
    """Have servers that start later in this process use ``GuardedProtocol``, and let them open as many as they may.

    ``door``, where there is one, makes the application that they call out of the one that they were given.
    """
    if door is not None:
        GuardedProtocol.door = staticmethod(door)
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:GuardedProtocol"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with deadlines for headers, bodies and answers, and a graceful end for idle connections."""

    door: Callable[[Any], Any] = staticmethod(lambda app: app)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.app = self.door(self.app)
        self._deadline: asyncio.TimerHandle | None = None
        self._begun: float | None = None  # when the request began that is coming in
        self._in_headers, self._received = True, 0
        self._stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection has to send a request."""
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count from the second piece of a request on, since uvicorn takes any amount of headers."""
        self._received += len(data)
        super().data_received(data)
        if self._in_headers and self._begun is not None and self._received > MAX_HEADER_BYTES:
            self._cut(HTTPStatus(431), f"The headers are larger than {MAX_HEADER_BYTES >> 10} KB; send fewer.")
        elif self._deadline is None and self.timeout_keep_alive_task is None and not self._answering():
            self._expect_request()  # blank lines, which begin no request, do not keep a connection

    def on_message_begin(self) -> None:
        """The clock of a request starts with its first byte."""
        super().on_message_begin()
        self._begun, self._in_headers, self._received = self.loop.time(), True, 0
        self._expect_request()

    def on_headers_complete(self) -> None:
        """The body comes next."""
        super().on_headers_complete()
        self._in_headers = False
        if self._stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request is whole; how long its answer takes is not the client's doing."""
        self._expect_nothing()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer has to be read."""
        super().on_response_complete()
        self._expect_reader(-1)

    def shutdown(self) -> None:
        """The server stops: what has begun is answered, and so is what is on its way on an idle connection."""
        self._stopping = True
        if self._answering():
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(GOODBYE_SECONDS, self._close_if_idle)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if not self._answering() and self._begun is None and not self.transport.is_closing():
            self.transport.close()

    def _expect_request(self) -> None:
        self._cancel()
        self._deadline = self.loop.call_later(RECEIVE_SECONDS, self._check_arrival)

    def _expect_nothing(self) -> None:
        self._begun = None
        self._cancel()

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _check_arrival(self) -> None:
        """The deadline has passed: cut the client off, unless it is a large body that comes in fast enough."""
        self._deadline = None
        if self._answering() and not self.cycle.more_body:  # it sent its next request early; we read none meanwhile
            self._expect_request()
            return
        taken = 0.0 if self._begun is None else self.loop.time() - self._begun
        if not self._in_headers and self._received > taken * BYTES_PER_SECOND and taken < RECEIVE_AT_MOST:
            self._deadline = self.loop.call_later(1, self._check_arrival)
        else:
            self._cut(HTTPStatus.REQUEST_TIMEOUT, "The request took too long to arrive; send it faster, or less.")

    def _cut(self, status: HTTPStatus, detail: str) -> None:
        """Answer a request that is not whole with a problem, where it began and has no answer yet, and close."""
        self._cancel()
        if self.transport.is_closing():
            return
        if self._begun is not None and not (self._answering() and self.cycle.response_started):
            name = uuid.uuid4().hex
            answer = problem_response(Problem(status, detail, {"connection": "close", "x-request-id": name}), name)
            lines = [f"HTTP/1.1 {int(status)} {status.phrase}".encode(), *(b": ".join(h) for h in answer.raw_headers)]
            self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()
        self._expect_reader(-1)

    def _expect_reader(self, left: int) -> None:
        """Cut off a client that has read nothing since ``left`` bytes were left of what was written for it."""
        now = self.transport.get_write_buffer_size()
        if now == left:
            self.transport.abort()
        elif now:
            self.loop.call_later(READ_SECONDS, self._expect_reader, now)
