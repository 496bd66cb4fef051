"""Load for a real server on this machine: the server as it runs in production, and clients in one event loop."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import httpx
import numpy as np
import psutil
import skimage.data

from components.bentos import Server, run_server
from components.inpainting.images import Bytes, encode_png, resize
from tests.served import white

SERVICE = "serving.service:KintsugiService"
PATIENCE = 120
"""Seconds that a client waits for an answer."""


class Form(NamedTuple):
    """A request to ``/inpaint``, encoded once."""

    body: bytes
    content_type: str


@dataclass
class Answers:
    """What clients got: seconds of every answer with 200, how often which status (0: the connection broke)."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    timings: dict[str, float] = field(default_factory=dict)
    """Milliseconds by stage, added up."""
    elapsed: float = 0.0

    def percentile(self, share: float) -> float:
        """Milliseconds in which this share (0 to 100) of the repairs came."""
        return float(np.percentile(self.seconds, share) * 1000) if self.seconds else float("nan")

    @property
    def rate(self) -> float:
        """Repairs per second."""
        return self.statuses[200] / self.elapsed

    def other(self) -> dict[int, int]:
        """What was not repaired, by status."""
        return {status: count for status, count in sorted(self.statuses.items()) if status != 200}


@contextmanager
def serve_models(model: Path) -> Iterator[Server]:
    """The server of a model folder, in processes of its own."""
    with tempfile.TemporaryDirectory(prefix="kintsugi-models-") as folder:
        watched = Path(folder)
        shutil.copytree(model, watched / "model")
        (watched / "current.json").write_text(json.dumps({"model": "model", "blind": ""}))
        with run_server(SERVICE, watched / "bentoml", {"KINTSUGI_MODELS": folder}) as server:
            yield server


def processes_of(server: Server) -> list[psutil.Process]:
    """The process that was started and all below it."""
    first = psutil.Process(server.pid)
    return [first, *first.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and all below it have taken so far."""
    first = psutil.Process(pid)
    times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
    return float(sum(spent.user + spent.system for spent in times))


def photograph(height: int, width: int) -> Bytes:
    """A photograph of a size, uint8 ``H,W,3``."""
    return resize(skimage.data.astronaut(), height, width)


def make_form(image: bytes, mask: Bytes | None, **fields: str) -> Form:
    """A form of a picture file and a mask (uint8 ``H,W`` of 0 and 1)."""
    files: dict[str, Any] = {"image": ("image.png", image)}
    if mask is not None:
        files["mask"] = ("mask.png", white(mask))
    request = httpx.Request("POST", "http://127.0.0.1/", files=files, data=fields)
    return Form(request.read(), request.headers["content-type"])


def square_form(side: int, hole: int) -> Form:
    """A square photograph as PNG with a square hole in its middle."""
    mask, start = np.zeros((side, side), np.uint8), (side - hole) // 2
    mask[start : start + hole, start : start + hole] = 1
    return make_form(encode_png(photograph(side, side)), mask)


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with as many connections as there are requests at a time."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as client:
        yield client


async def ask(client: aiohttp.ClientSession, url: str, form: Form, answers: Answers) -> float:
    """Send one request; returns for how many seconds the server asks to stay away."""
    began = time.perf_counter()
    try:
        headers = {"Content-Type": form.content_type}
        async with client.post(f"{url}/inpaint", data=form.body, headers=headers) as answer:
            await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError):
        answers.statuses[0] += 1
        return 0.0
    answers.statuses[answer.status] += 1
    if answer.status == 200:
        answers.seconds.append(time.perf_counter() - began)
        for stage in filter(None, answer.headers.get("Server-Timing", "").split(", ")):
            name, _, milliseconds = stage.partition(";dur=")
            answers.timings[name] = answers.timings.get(name, 0.0) + float(milliseconds)
    return float(answer.headers.get("Retry-After", 0))


async def hammer(url: str, forms: Sequence[Form], clients: int, seconds: float, *, polite: bool = True) -> Answers:
    """So many clients send one request after another for a while; polite ones come back when they are told to."""
    answers, began = Answers(), time.perf_counter()
    end = began + seconds

    async def client_of(http: aiohttp.ClientSession, number: int) -> None:
        while time.perf_counter() < end:
            away = await ask(http, url, forms[number % len(forms)], answers)
            number += clients
            await asyncio.sleep(away if polite else 0.05 * bool(away))

    async with session() as http:
        await asyncio.gather(*(client_of(http, number) for number in range(clients)))
    answers.elapsed = time.perf_counter() - began
    return answers


async def arrive(url: str, form: Form, rate: float, seconds: float) -> Answers:
    """So many requests a second, each of a client of its own who asks once, however long the answers take."""
    answers, began = Answers(), time.perf_counter()

    async def client_of(http: aiohttp.ClientSession, number: int) -> None:
        await asyncio.sleep(number / rate)
        await ask(http, url, form, answers)

    async with session() as http:
        await asyncio.gather(*(client_of(http, number) for number in range(math.ceil(rate * seconds))))
    answers.elapsed = time.perf_counter() - began
    return answers
