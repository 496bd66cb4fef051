"""The endpoint under attack, on this machine alone: slow clients, too many clients, a long mixture, and its end.

    python -m tests.benchmarks.attack [--model FOLDER] [--sockets 1000] [--seconds 10] [--requests 20000]

Attackers and honest clients share the cores with the server, so what honest clients see is worse than the
server is alone; figures before, during and after are taken in one run. The p99 of few requests is their slowest.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from components.bentos import Server
from components.inpainting.images import encode_png
from components.inpainting.inpainter import usable_cores
from serving.admission import Admission
from serving.connections import guard_connections
from tests.hammering import (
    Answers,
    Form,
    arrive,
    ask,
    hammer,
    make_form,
    photograph,
    processes_of,
    serve_models,
    session,
    square_form,
)
from tests.served import write_model

SLOW = (
    (b"POST /inpaint HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n"),
    (b"POST /inpaint HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
     b"Content-Length: 1000000\r\n\r\n--b\r\n", b"x"),
)  # fmt: skip
"""What a slow client begins with, and what it sends every second after that: headers, a body."""

GIVE_UP = 30.0
START = 2.0
"""Seconds in which all slow clients come."""
RECOVERY = 15.0


@dataclass
class Slow:
    """What became of slow clients: seconds after which each was cut off, and how many were not."""

    closed: list[float]
    left: int
    before: Answers
    during: Answers


@dataclass
class Overload:
    """Repairs before, during and after more requests than the server can repair."""

    idle: Answers
    during: Answers
    recovered: float
    """Seconds after the last of them until a request took no longer than twice the idle p99; infinite if none did."""


@dataclass(frozen=True)
class Ended:
    """A server that was told to stop: answers to what was sent before that, and to what was sent later.

    Later ones may break off (status 0): while the server stops, its system still takes connections for it.
    """

    in_flight: Answers
    later: Answers
    seconds: float


@dataclass(frozen=True)
class Resources:
    """What the server's processes hold together."""

    megabytes: float
    threads: int
    files: int


def slow_clients(server: Server, form: Form, sockets: int, seconds: float) -> Slow:
    """Hold sockets open, half in their headers and half in their bodies, while one honest client goes on.

    Attackers who are cut off come back at once.
    """
    before = asyncio.run(hammer(server.url, [form], 1, seconds))
    with _others() as pool:
        attack = pool.submit(_attack, server.url, sockets, seconds + START)
        time.sleep(START)
        during = asyncio.run(hammer(server.url, [form], 1, seconds))
        closed = attack.result()
    ended = [after for after in closed if after is not None]
    return Slow(ended, len(closed) - len(ended), before, during)


def _others() -> ProcessPoolExecutor:
    """A process of low priority: what attackers do must not be seen on an honest client's clock."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), os.nice, (10,))


def _attack(url: str, sockets: int, seconds: float) -> list[float | None]:
    """Seconds after which each connection was cut off, and ``None`` for every one that was not."""
    guard_connections()  # so many sockets need as many descriptors
    return asyncio.run(_attack_all(url, sockets, time.perf_counter() + seconds))


async def _attack_all(url: str, sockets: int, end: float) -> list[float | None]:
    closed: list[float | None] = []

    async def attacker(number: int) -> None:
        await asyncio.sleep(START * number / sockets)
        while time.perf_counter() < end:
            closed.append(await _drip(url, *SLOW[number % 2]))

    await asyncio.gather(*(attacker(number) for number in range(sockets)))
    return closed


async def _drip(url: str, begin: bytes, drop: bytes) -> float | None:
    """Seconds until the server closed a connection on which a request never becomes whole."""
    address = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(address[0], int(address[1]))
    began = time.perf_counter()
    try:
        writer.write(begin)
        end = asyncio.create_task(reader.read())
        while time.perf_counter() < began + GIVE_UP:
            if (await asyncio.wait({end}, timeout=1))[0]:
                return time.perf_counter() - began
            writer.write(drop)
        end.cancel()
        return None
    except OSError:
        return time.perf_counter() - began
    finally:
        writer.close()
        with suppress(OSError):
            end.exception() if end.done() and not end.cancelled() else None


def overload(server: Server, form: Form, many: Callable[[], Answers], seconds: float) -> Overload:
    """Repairs before, during and after ``many``, which asks for more of them than the server can do."""
    idle = asyncio.run(hammer(server.url, [form], 1, seconds))
    with _others() as pool:
        during = pool.submit(many).result()
    began, recovered = time.perf_counter(), float("inf")
    while time.perf_counter() < began + RECOVERY:
        answers = asyncio.run(hammer(server.url, [form], 1, 0.01))
        if answers.statuses[200] and answers.percentile(99) <= 2 * idle.percentile(99):
            recovered = time.perf_counter() - began
            break
    return Overload(idle, during, recovered)


def flood(url: str, form: Form, rate: float, seconds: float) -> Answers:
    """So many requests a second, answered or not."""
    return asyncio.run(arrive(url, form, rate, seconds))


def crowd(url: str, form: Form, clients: int, seconds: float) -> Answers:
    """Clients who are sent away and come back at once."""
    return asyncio.run(hammer(url, [form], clients, seconds, polite=False))


def mixture() -> list[Form]:
    """Pictures of several sizes and kinds of answer, and requests that are refused."""
    small, wide = encode_png(photograph(64, 64)), encode_png(photograph(96, 160))
    mask = photograph(64, 64)[..., 0] % 2
    return [
        square_form(64, 16),
        square_form(128, 8),
        make_form(small, mask, format="jpeg"),
        make_form(small, mask, format="webp", grow_mask="4", feather="2"),
        make_form(small, mask, output="mask"),
        make_form(wide, mask),  # a mask of another size
        make_form(small, None),  # no mask, and no blind model
        make_form(small, mask, colour="red"),
        make_form(small[:200], mask),
        make_form(b"GIF89a", mask),
        Form(b"--b\r\nnonsense", "multipart/form-data; boundary=b"),
        Form(b'{"image": "http://127.0.0.1/"}', "application/json"),
        Form(b"\x80\x04N.", "application/vnd.bentoml+pickle"),
    ]


def mixed(server: Server, requests: int, clients: int = 2) -> tuple[Answers, list[Resources]]:
    """Send a mixture; the resources are those after a tenth of it and at the end."""
    forms, answers, resources = mixture(), Answers(), []

    async def send(count: int) -> None:
        numbers = iter(range(count))

        async def client_of() -> None:
            for number in numbers:
                await ask(http, server.url, forms[number % len(forms)], answers)

        async with session() as http:
            await asyncio.gather(*(client_of() for _ in range(clients)))

    for count in (requests // 10, requests - requests // 10):
        asyncio.run(send(count))
        time.sleep(1)
        resources.append(measure(server))
    return answers, resources


def measure(server: Server) -> Resources:
    """What the server's processes hold now."""
    processes = processes_of(server)
    return Resources(
        sum(process.memory_info().rss for process in processes) / 1e6,
        sum(process.num_threads() for process in processes),
        sum(process.num_fds() for process in processes),
    )


def end_under_load(server: Server, form: Form, clients: int, after: float) -> Ended:
    """SIGTERM while clients work, each of their requests on a connection of its own."""
    return asyncio.run(_end_under_load(server, form, clients, after))


async def _end_under_load(server: Server, form: Form, clients: int, after: float) -> Ended:
    in_flight, later, stopped, processes = Answers(), Answers(), asyncio.Event(), processes_of(server)
    address = server.url.removeprefix("http://").split(":")

    async def client_of() -> None:
        while True:
            with socket.socket() as connection:
                connection.setblocking(False)
                answers = later if stopped.is_set() else in_flight
                try:
                    await asyncio.get_running_loop().sock_connect(connection, (address[0], int(address[1])))
                except OSError:  # refused: nobody listens any more
                    return
                answers.statuses[await _exchange(connection, form)] += 1

    load = [asyncio.create_task(client_of()) for _ in range(clients)]
    await asyncio.sleep(after)
    stopped.set()
    began = time.perf_counter()
    os.kill(server.pid, signal.SIGTERM)
    await asyncio.gather(*load)
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes[1:], GIVE_UP)
    return Ended(in_flight, later, float("inf") if alive else time.perf_counter() - began)


async def _exchange(connection: socket.socket, form: Form) -> int:
    """Send one request; the status of its answer, 0 where that is not whole."""
    loop = asyncio.get_running_loop()
    head = f"POST /inpaint HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {form.content_type}\r\n"
    answer = b""
    try:
        await loop.sock_sendall(connection, f"{head}Content-Length: {len(form.body)}\r\n\r\n".encode() + form.body)
        while received := await loop.sock_recv(connection, 1 << 16):
            answer += received
    except OSError:
        answer = b""
    headers, _, body = answer.partition(b"\r\n\r\n")
    lengths = [line for line in headers.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    whole = bool(lengths) and int(lengths[0].split(b":")[1]) == len(body)
    return int(headers.split(b" ")[1]) if whole else 0


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a folder with generator.onnx and provenance.json")
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or write_model(Path(folder) / "model")
        with serve_models(model) as server:
            _report(server, options)


def _report(server: Server, options: argparse.Namespace) -> None:
    form, admission = square_form(256, 64), Admission()
    admission.fit(usable_cores())
    let_in = admission.concurrent + admission.queue
    asyncio.run(hammer(server.url, [form], 1, 1))
    slow = slow_clients(server, form, options.sockets, options.seconds)
    print(f"{options.sockets} slow clients: p99 of an honest one x {_ratio(slow.during, slow.before):.2f},")
    print(f"  {slow.before.percentile(99):.0f} ms before, {slow.during.percentile(99):.0f} ms during")
    print(f"  all cut off after {max(slow.closed):.1f} s" if not slow.left else f"  {slow.left} were not cut off")
    rate = 5 * asyncio.run(hammer(server.url, [form], admission.concurrent, options.seconds)).rate
    for what, many in (
        (f"{rate:.0f} requests a second", partial(flood, server.url, form, rate, options.seconds)),
        (f"{5 * let_in} who do not wait", partial(crowd, server.url, form, 5 * let_in, options.seconds)),
    ):
        busy = overload(server, form, many, options.seconds)
        print(f"{what}: p99 of repairs x {_ratio(busy.during, busy.idle):.2f}, at most 2 is wanted,")
        print(f"  {busy.idle.percentile(99):.0f} ms idle, {busy.during.percentile(99):.0f} ms then")
        print(f"  {busy.during.statuses[200]} repaired, {busy.during.other()} not; recovered in {busy.recovered:.1f} s")
    answers, (first, last) = mixed(server, options.requests)
    print(f"{options.requests} mixed requests, after a tenth and at the end: {dict(sorted(answers.statuses.items()))}")
    print(f"  memory x {last.megabytes / first.megabytes:.3f} ({first.megabytes:.0f} to {last.megabytes:.0f} MB)")
    print(f"  threads {first.threads} to {last.threads}, descriptors {first.files} to {last.files}")
    ended = end_under_load(server, form, 2, min(3, options.seconds))
    print(f"SIGTERM under load, ended after {ended.seconds:.1f} s (status 0: no whole answer)")
    print(f"  sent before: {dict(ended.in_flight.statuses)}, after: {dict(ended.later.statuses)}")


def _ratio(during: Answers, before: Answers) -> float:
    return during.percentile(99) / before.percentile(99)


if __name__ == "__main__":
    main()
