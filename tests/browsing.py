"""The service and its page in a real browser: a server on a free port that keeps what is posted, and Chromium."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.inpainting.images import Bytes, decode_mask


@dataclass
class Site:
    """A running service; ``posts`` holds the parts of every form posted to it."""

    url: str = ""
    posts: list[dict[str, bytes | str]] = field(default_factory=list)

    @property
    def mask(self) -> Bytes:
        """The mask posted last."""
        content = self.posts[-1]["mask"]
        assert isinstance(content, bytes)
        return decode_mask(content)


@contextmanager
def serve(app: ASGIApp) -> Iterator[Site]:
    """Serve ``app`` on a free port of this machine."""
    site = Site()
    server = uvicorn.Server(uvicorn.Config(_recording(app, site), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    site.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    yield site
    server.should_exit = True
    thread.join()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium as the machine has it; skips where it has none."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, site: Site, **context: object) -> Iterator[Page]:
    """The page, loaded; afterwards no script failed, no policy was broken and nothing came from elsewhere."""
    tab = browser.new_context(**{"viewport": {"width": 1280, "height": 820}, **context})  # type: ignore[arg-type]
    page = tab.new_page()
    errors: list[str] = []
    addresses: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if "Policy" in message.text else None)
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(site.url)
    page.wait_for_selector("#model:has-text('version')")
    yield page
    assert not errors
    assert all(address.startswith((site.url, f"blob:{site.url}")) for address in addresses)
    tab.close()


def segment(mask: Bytes, start: tuple[float, float], end: tuple[float, float], size: float, value: int = 1) -> None:
    """Set in ``mask`` every pixel whose centre is at most half of ``size`` from the segment (in pixels, x first)."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    (ax, ay), (bx, by) = start, end
    length = (bx - ax) ** 2 + (by - ay) ** 2
    along = np.clip(((columns - ax) * (bx - ax) + (rows - ay) * (by - ay)) / max(length, 1e-12), 0, 1)
    near = np.hypot(columns - ax - along * (bx - ax), rows - ay - along * (by - ay)) <= size / 2
    mask[near] = value


def _recording(app: ASGIApp, site: Site) -> ASGIApp:
    async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await app(scope, receive, send)
        body = await Request(scope, receive).body()
        site.posts.append(await _parts(scope, body))
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body}

        return await app(scope, replay, send)

    return recorded


async def _parts(scope: Scope, body: bytes) -> dict[str, bytes | str]:
    async def stream():
        yield body

    form = await MultiPartParser(Request(scope).headers, stream()).parse()
    return {name: part if isinstance(part, str) else await part.read() for name, part in form.items()}
