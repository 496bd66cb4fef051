"""A server whose clients are slow, or that stops: deadlines, and what is answered all the same."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import serving.connections
from serving.answers import Problem
from serving.connections import MAX_HEADER_BYTES, GuardedProtocol

RECEIVE = 0.6


async def echo(request: Request) -> PlainTextResponse:
    import asyncio

    body = await request.body()
    await asyncio.sleep(float(request.query_params.get("sleep", 0)))
    return PlainTextResponse(str(len(body)))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """A server with short deadlines, in a thread."""
    monkeypatch.setattr(serving.connections, "RECEIVE_SECONDS", RECEIVE)
    app = Starlette(routes=[Route("/", echo, methods=["GET", "POST"])])
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(app, http=GuardedProtocol, log_level="critical"))
    running.address = listener.getsockname()  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield running
    running.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@contextlib.contextmanager
def connect(server: uvicorn.Server) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=5) as sock:  # type: ignore[attr-defined]
        yield sock


def read_to_end(sock: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        return b"".join(iter(lambda: sock.recv(65536), b""))
    return b""


@pytest.mark.parametrize(
    ("sent", "trickle"),
    [
        (b"", b""),
        (b"\r\n", b"\r\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["nothing", "blank lines", "headers", "body", "chunks"],
)
def test_slow_clients_are_cut_off(sent: bytes, trickle: bytes, server: uvicorn.Server) -> None:
    with connect(server) as sock:
        sock.sendall(sent)
        started = time.monotonic()
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while trickle and not stop.wait(0.1):
                    sock.sendall(trickle)

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = read_to_end(sock)
        stop.set()
        dripping.join()
        assert time.monotonic() - started < RECEIVE + 2
    if sent.startswith(b"POST") and answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"content-type: application/problem+json" in head
        problem = Problem.model_validate_json(body)
        assert f"x-request-id: {problem.request_id}".encode() in head and problem.status == 408


def test_a_long_answer_and_a_large_body_are_no_slowness(server: uvicorn.Server) -> None:
    url = "http://{}:{}/".format(*server.address)  # type: ignore[attr-defined]
    with httpx.Client() as client:
        assert client.get(url, params={"sleep": 2 * RECEIVE}).text == "0"
        chunks = (time.sleep(0.1) or b"x" * 100_000 for _ in range(12))  # type: ignore[func-returns-value]
        assert client.post(url, content=chunks).text == "1200000"


def test_headers_without_end_are_refused(server: uvicorn.Server) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        time.sleep(0.05)
        sock.sendall(b"a: " + b"x" * MAX_HEADER_BYTES)
        assert b"431" in read_to_end(sock)[:20]


def test_a_server_that_stops_answers_what_has_begun_and_what_comes_at_that_moment(server: uvicorn.Server) -> None:
    answers: list[bytes] = []
    with connect(server) as busy, connect(server) as idle:
        for sock in (busy, idle):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(65536).endswith(b"0")
        busy.sendall(b"GET /?sleep=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.1)
        server.should_exit = True
        time.sleep(0.25)
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answers += [read_to_end(busy), read_to_end(idle)]
    assert all(answer.startswith(b"HTTP/1.1 200 OK") and b"connection: close" in answer for answer in answers)
