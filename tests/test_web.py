"""The page in Chromium, against the real service: what is painted is what is posted, and what comes back is shown."""

from __future__ import annotations

import io
import json
import re
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import numpy as np
import pytest
from anyio import CapacityLimiter
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect
from skimage.metrics import structural_similarity

from components.inpainting.export import export_onnx
from components.inpainting.images import Bytes, decode_image, decode_mask, encode_png
from components.inpainting.networks.residual_unet import ResidualUNet
from serving.engine import Engine
from serving.service import app
from tests.browsing import Site, chromium, open_page, segment, serve

pytestmark = pytest.mark.browser

Place = tuple[float, float]


class Open(Protocol):
    def __call__(self, **context: object) -> AbstractContextManager[Page]: ...


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("model")
    generator = ResidualUNet(widths=(8, 16), num_blocks=1, dilations=(1, 2), fill_levels=2, fill_iterations=2)
    export_onnx(generator, folder / "generator.onnx")
    provenance = {"name": "kintsugi", "version": "3", "digest": "d" * 64, "run_id": "r", "stride": generator.stride}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    app.state.engine, app.state.limiter = Engine.open(folder), CapacityLimiter(1)
    with serve(app) as site:
        yield site


@pytest.fixture
def visit(browser: Browser, site: Site) -> Open:
    return partial(open_page, browser, site)


@pytest.fixture
def page(visit: Open, picture: Bytes) -> Iterator[Page]:
    with visit() as page:
        load(page, encode_png(picture))
        yield page


@pytest.fixture
def picture() -> Bytes:
    """200 by 240 pixels; red says which column a pixel is in, green which row, and blue is noise."""
    rows, columns = np.mgrid[:200, :240].astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, rows.shape, dtype=np.uint8)
    return np.stack([columns, rows, noise], axis=-1)


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


SHARES = ((0.4, 0.3), (0.45, 0.5), (0.6, 0.45), (0.5, 0.62))


@pytest.mark.parametrize("draw", [mouse, pen])
def test_what_is_painted_is_what_is_posted(draw: Any, page: Page, site: Site, picture: Bytes) -> None:
    path = places(page, *SHARES)
    for place in path:
        assert np.abs(np.array(seen(page, place))[:2] - np.floor(to_picture(page, place))).max() <= 1
    draw(page, path)
    repair(page)
    assert site.posts[-1]["image"] == encode_png(picture)
    assert np.array_equal(site.mask, expected_mask(page, path))


def test_zoomed_and_panned_pictures_are_painted_on_where_the_pointer_is(page: Page, site: Site) -> None:
    middle, aside = places(page, (0.5, 0.5), (0.3, 0.6))
    for _ in range(3):
        page.click("#zoom-in")
    page.mouse.move(*aside)
    page.mouse.wheel(0, -300)
    page.mouse.move(*middle)
    page.mouse.down(button="middle")
    page.mouse.move(middle[0] + 57, middle[1] - 31)
    page.mouse.up(button="middle")
    page.keyboard.down(" ")
    mouse(page, [middle, (middle[0] - 20, middle[1] + 11)])
    page.keyboard.up(" ")
    assert float(page.get_attribute("#stage", "data-scale") or 0) > 8
    path = places(page, *SHARES)
    page.wait_for_timeout(100)
    for place in path:
        assert np.abs(np.array(seen(page, place))[:2] - np.floor(to_picture(page, place))).max() <= 1
    mouse(page, path)
    repair(page)
    assert np.array_equal(site.mask, expected_mask(page, path))


def test_one_finger_paints_and_two_move_the_picture(visit: Open, site: Site, picture: Bytes) -> None:
    with visit(viewport={"width": 380, "height": 760}, device_scale_factor=2, has_touch=True, is_mobile=True) as page:
        load(page, encode_png(picture))
        first, second, end = places(page, (0.3, 0.5), (0.6, 0.5), (0.9, 0.6))
        fit = float(page.get_attribute("#stage", "data-scale") or 0)
        touch(page, [first, first, first], [second, end, end])
        assert float(page.get_attribute("#stage", "data-scale") or 0) > 1.5 * fit
        expect(page.locator("#facts")).to_contain_text("0 % marked")
        path = places(page, *SHARES)
        expected = expected_mask(page, path)  # before the page is scrolled to the button
        touch(page, path)
        repair(page)
        assert np.array_equal(site.mask, expected)


def test_eraser_undo_redo_and_clear(page: Page, site: Site) -> None:
    path = places(page, *SHARES)
    across = places(page, (0.35, 0.45), (0.65, 0.45))
    mouse(page, path)
    page.click("#eraser")
    for _ in range(3):
        page.keyboard.press("[")
    mouse(page, across)
    repair(page)
    erased = site.mask
    points = [to_picture(page, place) for place in across]
    page.keyboard.press("b")
    for _ in range(3):
        page.keyboard.press("]")
    painted = expected_mask(page, path)
    for _ in range(3):
        page.keyboard.press("[")
    both = painted.copy()
    segment(both, points[0], points[1], brush_size(page), value=0)
    assert np.array_equal(erased, both)
    page.keyboard.press("Control+z")
    repair(page)
    assert np.array_equal(site.mask, painted)
    page.click("#redo")
    repair(page)
    assert np.array_equal(site.mask, erased)
    page.click("#clear")
    expect(page.locator("#facts")).to_contain_text("0 % marked")
    page.click("#repair")
    expect(page.locator("#error")).to_contain_text("Mark the damage first")
    page.click("#undo")
    repair(page)
    assert np.array_equal(site.mask, erased)


def test_the_keyboard_paints_too(page: Page, site: Site) -> None:
    page.focus("#stage")
    for key in ("Enter", "ArrowRight", "ArrowRight", "ArrowDown", "Enter", "ArrowRight"):
        page.keyboard.press(key)
    repair(page)
    rows, columns = np.nonzero(site.mask)
    assert site.mask[100, 120] == 1  # the middle, where the brush starts
    assert columns.max() - columns.min() > rows.max() - rows.min() >= brush_size(page) - 1


def test_the_repair_appears_and_can_be_compared_and_downloaded(page: Page, picture: Bytes) -> None:
    path = places(page, *SHARES)
    mouse(page, path)
    hole = to_picture(page, path[1])
    repair(page)
    assert "version 3" in page.inner_text("#figures")
    assert re.search(r"\d\.\d\d s", page.inner_text("#figures"))
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "picture-mended.png"
    repaired = decode_image(download.value.path().read_bytes())
    before, after = around(picture, hole), around(repaired, hole)
    assert not any(colour in before for colour in after)
    page.focus("#slider")
    page.keyboard.press("Home")
    page.wait_for_timeout(100)
    assert seen(page, path[1]) in after
    page.keyboard.press("End")
    page.wait_for_timeout(100)
    assert seen(page, path[1]) in before
    page.keyboard.press("c")
    page.wait_for_timeout(100)
    gold = seen(page, path[1])
    assert gold[0] > gold[1] > gold[2]
    assert gold not in before + after


def test_masks_are_saved_and_loaded(page: Page, site: Site) -> None:
    path = places(page, *SHARES)
    mouse(page, path)
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "picture-mask.png"
    saved = download.value.path().read_bytes()
    assert np.array_equal(decode_mask(saved), expected_mask(page, path))
    page.keyboard.press("x")
    choose = partial(page.set_input_files, "#mask-file")
    choose({"name": "mask.png", "mimeType": "image/png", "buffer": saved})
    expect(page.locator("#status")).to_contain_text("The mask is loaded")
    repair(page)
    assert np.array_equal(site.mask, expected_mask(page, path))
    choose({"name": "other.png", "mimeType": "image/png", "buffer": encode_png(np.zeros((10, 20), np.uint8))})
    expect(page.locator("#error")).to_contain_text("The mask is 20×10 pixels but the picture is 240×200")


@pytest.mark.parametrize("kind", ["scratches", "text", "cracks", "downscale"])
def test_damage_is_marked_and_the_repair_is_scored(
    kind: str, visit: Open, site: Site, photographs: list[Bytes]
) -> None:
    clean = photographs[0]
    with visit() as page:
        load(page, encode_png(clean))
        page.click(f"[data-damage={kind}]")
        expect(page.locator("#status")).to_contain_text("damaged")
        page.click("#repair")
        scores = page.locator("#figures dd")
        expect(scores).to_have_count(4, timeout=30_000)
        content = site.posts[-1]["image"]
        assert isinstance(content, bytes)
        damaged, hole = decode_image(content), site.mask == 1
        assert 0.005 < hole.mean() < 0.9
        assert np.array_equal(damaged[~hole], clean[~hole])
        assert (damaged[hole] != clean[hole]).any(axis=-1).mean() > 0.5
        with page.expect_download() as download:
            page.click("#download")
        repaired = decode_image(download.value.path().read_bytes())
        pictures = (damaged, repaired)
        shown = [[float(text) for text in scores.nth(row).inner_text().split(" → ")] for row in (2, 3)]
        similarities = [structural_similarity(clean, p, channel_axis=-1) for p in pictures]
        errors = [((clean[hole] / 255 - p[hole] / 255) ** 2).mean() for p in pictures]
        assert shown[0] == pytest.approx(similarities, abs=1e-3)
        assert shown[1] == pytest.approx(errors, abs=1e-5)
        page.click("#undo")
        expect(page.locator("#facts")).to_contain_text("0 % marked")


def test_a_sample_is_one_press_away_and_scored_without_damage(visit: Open) -> None:
    with visit() as page:
        page.click("[data-sample='coffee.jpg']")
        expect(page.locator("#facts")).to_contain_text("coffee.jpg · 480 × 320 pixels")
        mouse(page, places(page, *SHARES))
        page.click("#repair")
        expect(page.locator("#figures")).to_contain_text("SSIM", timeout=30_000)
        assert "→" not in page.inner_text("#figures")


def test_turned_photographs_are_posted_as_they_are_with_an_upright_mask(visit: Open, site: Site) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((300, 200), 40).convert("RGB").save(buffer, "JPEG", exif=exif)
    with visit() as page:
        load(page, buffer.getvalue(), "turned.jpg")
        expect(page.locator("#facts")).to_contain_text("200 × 300 pixels")
        path = places(page, *SHARES)
        mouse(page, path)
        repair(page)
        assert site.posts[-1]["image"] == buffer.getvalue()
        assert np.array_equal(site.mask, expected_mask(page, path, (300, 200)))


def test_transparent_parts_are_marked(visit: Open, site: Site, picture: Bytes) -> None:
    alpha = np.full((200, 240, 1), 255, np.uint8)
    alpha[20:60, 30:90] = 0
    with visit() as page:
        load(page, encode_png(np.concatenate([picture, alpha], axis=-1)))
        expect(page.locator("#status")).to_contain_text("transparent part is marked")
        repair(page)
        assert np.array_equal(site.mask == 1, alpha[..., 0] == 0)


def test_a_large_picture_is_painted_and_posted(visit: Open, site: Site) -> None:
    rows, columns = np.mgrid[:3000, :4000]
    large = np.stack([columns // 16, rows // 12, (rows + columns) // 28], axis=-1).astype(np.uint8)
    with visit() as page:
        load(page, encode_png(large))
        for _ in range(12):
            page.keyboard.press("[")
        path = places(page, (0.5, 0.5), (0.52, 0.53))
        mouse(page, path)
        repair(page)
        assert np.array_equal(site.mask, expected_mask(page, path, (3000, 4000)))


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
