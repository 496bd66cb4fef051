"""The service and its page in a real browser: a server on a free port that keeps what is posted, and Chromium."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.inpainting.images import Bytes, decode_image, decode_mask

Place = tuple[float, float]
SHARES = ((0.4, 0.3), (0.45, 0.5), (0.6, 0.45), (0.5, 0.62))
"""A stroke, in shares of the stage's width and height."""


class Open(Protocol):
    """Open the page in a browser context of its own, see ``open_page``."""

    def __call__(self, **context: object) -> AbstractContextManager[Page]: ...


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


def load(page: Page, content: bytes, name: str = "picture.png") -> None:
    page.set_input_files("#picture-file", {"name": name, "mimeType": "image/png", "buffer": content})
    expect(page.locator("#facts")).to_contain_text(name)


def to_picture(page: Page, place: Place) -> Place:
    """Where in the picture a place of the window is, as the page says it is drawn."""
    x, y, view = page.evaluate(
        "() => { const b = stage.getBoundingClientRect(); return [b.left, b.top, {...stage.dataset}] }"
    )
    left, top, scale = (float(view[name]) for name in ("left", "top", "scale"))
    return (place[0] - x - left) / scale, (place[1] - y - top) / scale


def seen(page: Page, place: Place) -> list[int]:
    """The colour that the screen shows at a place."""
    x, y = place
    shot = page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})
    return [int(value) for value in decode_image(shot)[0, 0]]


def around(picture: Bytes, place: Place) -> list[list[int]]:
    """The colours of the pixels around a place; on the border of two the browser may show either."""
    column, row = (int(value) for value in place)
    colours: list[list[int]] = picture[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3).tolist()
    return colours


def places(page: Page, *shares: Place) -> list[Place]:
    """Places of the window at shares of the stage's width and height."""
    box = page.locator("#stage").bounding_box()
    assert box is not None
    return [(round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])) for x, y in shares]


def mouse(page: Page, path: Sequence[Place]) -> None:
    page.mouse.move(*path[0])
    page.mouse.down()
    for place in path[1:]:
        page.mouse.move(*place)
    page.mouse.up()


def pen(page: Page, path: Sequence[Place]) -> None:
    send = partial(page.context.new_cdp_session(page).send, "Input.dispatchMouseEvent")
    kinds = ["mousePressed"] + ["mouseMoved"] * (len(path) - 1) + ["mouseReleased"]
    for kind, (x, y) in zip(kinds, [*path, path[-1]], strict=True):
        send({"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1, "pointerType": "pen"})


def touch(page: Page, *paths: Sequence[Place]) -> None:
    """One finger for each path, all together."""
    send = partial(page.context.new_cdp_session(page).send, "Input.dispatchTouchEvent")
    for number, fingers in enumerate(zip(*paths, strict=True)):
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(fingers)]
        send({"type": "touchMove" if number else "touchStart", "touchPoints": points})
    send({"type": "touchEnd", "touchPoints": []})


def brush_size(page: Page) -> int:
    return int(page.inner_text("#size-text").removesuffix(" px"))


def repair(page: Page) -> None:
    page.click("#repair")
    expect(page.locator("#status")).to_contain_text("Repaired", timeout=30_000)


def expected_mask(page: Page, path: Sequence[Place], size: tuple[int, int] = (200, 240)) -> Bytes:
    mask = np.zeros(size, np.uint8)
    points = [to_picture(page, place) for place in path]
    for start, end in zip(points, points[1:] or points, strict=False):
        segment(mask, start, end, brush_size(page))
    return mask


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
