"""The page in Chromium, against the real service: what is painted is what is posted, and what comes back is shown."""

from __future__ import annotations

import io
import re
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from skimage.metrics import structural_similarity

from components.inpainting.images import Bytes, decode_image, decode_mask, encode_png
from tests.browsing import (
    SHARES,
    Open,
    Site,
    around,
    brush_size,
    expected_mask,
    load,
    mouse,
    pen,
    places,
    repair,
    seen,
    segment,
    to_picture,
    touch,
)

pytestmark = pytest.mark.browser


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
    page.click("#zoom-in")  # from three times its size on, pixels are drawn as squares
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
