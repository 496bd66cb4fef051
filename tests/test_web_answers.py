"""The page in Chromium: files from everywhere, what the server may answer, layout, keys."""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from functools import partial

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from components.inpainting.images import Bytes, encode_png
from tests.browsing import (
    SHARES,
    Open,
    Site,
    expected_mask,
    load,
    mouse,
    places,
    repair,
)

pytestmark = pytest.mark.browser


def inject(page: Page, kind: str, content: bytes) -> None:
    """Have the page get a file by ``paste`` or ``drop``."""
    page.evaluate(
        """([kind, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, { type: "image/png" }));
            const event = kind === "paste"
                ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
                : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
            document.body.dispatchEvent(event);
        }""",
        [kind, list(content)],
    )


def test_pictures_are_pasted_and_dropped_and_undo_brings_the_last_one_back(visit: Open, picture: Bytes) -> None:
    with visit() as page:
        inject(page, "paste", encode_png(picture))
        expect(page.locator("#facts")).to_contain_text("paste.png")
        mouse(page, places(page, *SHARES))
        marked = page.inner_text("#facts")
        assert " 0 %" not in marked
        inject(page, "drop", encode_png(picture[:100]))
        expect(page.locator("#facts")).to_contain_text("drop.png · 240 × 100 pixels · 0 % marked")
        page.click("#undo")
        expect(page.locator("#facts")).to_have_text(marked)
        inject(page, "drop", b"hello")
        expect(page.locator("#error")).to_contain_text("no picture that the browser can read")
        expect(page.locator("#facts")).to_have_text(marked)


def problem(route: Route, status: int, detail: str, **headers: str) -> None:
    body = json.dumps({"type": "about:blank", "title": "Problem", "status": status, "detail": detail})
    route.fulfill(status=status, body=body, content_type="application/problem+json", headers=headers)


def test_errors_are_the_servers_sentence_and_lose_nothing(page: Page, site: Site) -> None:
    path = places(page, *SHARES)
    mouse(page, path)
    page.route("**/inpaint", lambda route: problem(route, 413, "Send a smaller picture."))
    page.click("#repair")
    expect(page.locator("#error")).to_have_text("Send a smaller picture.")
    page.unroute("**/inpaint")
    page.route("**/inpaint", lambda route: route.abort())
    page.click("#repair")
    expect(page.locator("#error")).to_contain_text("The server does not answer")
    page.unroute("**/inpaint")
    repair(page)
    assert page.inner_text("#error") == ""
    assert np.array_equal(site.mask, expected_mask(page, path))


def test_a_busy_server_is_asked_again_when_it_says(page: Page) -> None:
    mouse(page, places(page, *SHARES))
    refusals = [2]

    def busy(route: Route) -> None:
        if refusals:
            return problem(route, 429, "Busy.", **{"Retry-After": str(refusals.pop())})
        return route.continue_()

    page.route("**/inpaint", busy)
    started = time.monotonic()
    page.click("#repair")
    expect(page.locator("#status")).to_contain_text("trying again in 2 s")
    expect(page.locator("#status")).to_contain_text("Repaired", timeout=30_000)
    assert time.monotonic() - started > 2


def test_a_repair_can_be_cancelled(page: Page, site: Site) -> None:
    path = places(page, *SHARES)
    mouse(page, path)
    page.route("**/inpaint", lambda route: None)
    page.click("#repair")
    expect(page.locator("#repair")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_contain_text("Cancelled; your mask is kept")
    page.unroute("**/inpaint")
    repair(page)
    assert np.array_equal(site.mask, expected_mask(page, path))


def test_a_key_is_asked_for_and_sent(page: Page) -> None:
    mouse(page, places(page, *SHARES))
    keys: list[str | None] = []

    def guarded(route: Route) -> None:
        keys.append(route.request.headers.get("authorization"))
        return route.continue_() if keys[-1] == "Bearer secret" else problem(route, 401, "Send an API key.")

    page.route("**/inpaint", guarded)
    page.click("#repair")
    expect(page.locator("#error")).to_have_text("Send an API key.")
    page.keyboard.type("secret\n")
    expect(page.locator("#status")).to_contain_text("Repaired", timeout=30_000)
    assert keys == [None, "Bearer secret"]


def test_blind_repair_is_explained_where_it_is_missing(page: Page) -> None:
    expect(page.locator("#blind")).to_be_disabled()
    assert "no model that finds damage" in page.inner_text("#blind-note")


def test_the_damage_that_a_blind_model_found_becomes_the_mask(browser: Browser, site: Site, picture: Bytes) -> None:
    found = np.zeros((200, 240), np.uint8)
    found[50:90, 60:200] = 255
    answer = {"format": "png", "mask_source": "found"} | {
        name: b64encode(encode_png(content)).decode() for name, content in {"image": picture, "mask": found}.items()
    }
    tab = browser.new_context()
    page = tab.new_page()
    page.route("**/model", lambda route: route.fulfill(json={"name": "kintsugi", "version": "4", "blind": True}))
    page.route("**/inpaint", lambda route: route.fulfill(json=answer, headers={"X-Model-Version": "4"}))
    page.goto(site.url)
    load(page, encode_png(picture))
    page.click("#blind")
    expect(page.locator("#status")).to_contain_text("Repaired")
    page.unroute("**/inpaint")
    page.click("#toggle")
    repair(page)
    assert np.array_equal(site.mask, found // 255)
    tab.close()


@pytest.mark.parametrize("width", [380, 900, 1280])
def test_nothing_sticks_out_sideways(width: int, visit: Open) -> None:
    with visit(viewport={"width": width, "height": 760}) as page:
        page.click("[data-sample='astronaut.jpg']")
        page.click("[data-damage=cracks]")
        repair(page)
        page.locator("details").first.evaluate("details => details.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_light_follow_the_system_or_the_button(visit: Open) -> None:
    with visit(color_scheme="dark") as page:
        ground = partial(page.evaluate, "getComputedStyle(document.body).backgroundColor")
        dark = ground()
        page.emulate_media(color_scheme="light")
        light = ground()
        assert dark != light
        page.click("#theme")
        page.click("#theme")
        assert ground() == dark
        page.reload()
        assert page.inner_text("#theme") == "Theme: dark"
        assert ground() == dark


def test_help_lists_the_shortcuts_and_everything_has_a_name(page: Page) -> None:
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).to_contain_text("Ctrl+Z")
    page.keyboard.press("Escape")
    expect(page.locator("#shortcuts")).not_to_be_visible()
    controls = page.locator("button:visible, input:visible, select:visible, a:visible")
    for control in controls.all():
        assert re.search(r'^- .?\w+ ".+"', control.aria_snapshot()), control.evaluate("element => element.outerHTML")
    assert page.locator("#status[role=status][aria-live=polite], #error[role=alert]").count() == 2
