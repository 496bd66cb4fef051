from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.inpainting.images import Bytes, Floats, MaskError
from components.inpainting.inpainter import open_classical, wrap_generator
from components.inpainting.networks import build_generator
from components.inpainting.networks.blind_unet import BlindUNet
from components.inpainting.tiling import MAX_TILE, hole_window, repair_blindly, repair_picture, tiles

STRIDE = 16


def grey(image: Floats, mask: Floats) -> Floats:
    """A network that fills with 0.5, and insists on what it was promised."""
    assert image.shape[0] == mask.shape[0]
    assert image.shape[2] % STRIDE == image.shape[3] % STRIDE == 0
    assert max(image.shape[2:]) <= MAX_TILE + STRIDE
    assert (image * mask == 0).all()
    return np.where(mask > 0, np.float32(0.5), image)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.floats(0.001, 1), st.integers(0, 2**32 - 1))
def test_any_size_and_any_hole_is_repaired_and_the_rest_is_exact(
    height: int, width: int, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = (rng.random((height, width)) < share).astype(np.uint8)
    repaired = repair_picture(image, mask, grey, STRIDE)
    assert np.array_equal(repaired[mask == 0], image[mask == 0])
    assert (repaired[mask == 1] == 128).all()


def test_no_hole_calls_no_network() -> None:
    image = np.zeros((9, 9, 3), np.uint8)

    def never(image: Floats, mask: Floats) -> Floats:
        raise AssertionError("called")

    assert np.array_equal(repair_picture(image, np.zeros((9, 9), np.uint8), never, STRIDE), image)


def test_large_pictures_are_cut_and_only_where_there_are_holes() -> None:
    image = np.zeros((1300, 1700, 3), np.uint8)
    mask = np.zeros((1300, 1700), np.uint8)
    mask[5:9, 5:9] = mask[1290:1295, 1690:1695] = 1
    shapes = []

    def record(image: Floats, mask: Floats) -> Floats:
        shapes.append(image.shape)
        return grey(image, mask)

    repaired = repair_picture(image, mask, record, STRIDE)
    assert len(shapes) == 2
    assert (repaired[mask == 1] == 128).all()


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_tiles_cover_everything(height: int, width: int) -> None:
    covered = np.zeros((height, width), bool)
    for rows, columns in tiles(height, width):
        covered[rows, columns] = True
        assert rows.stop <= height
        assert rows.stop - rows.start <= MAX_TILE
    assert covered.all()


def test_neighbouring_tiles_are_blended_without_a_seam() -> None:
    """Each tile answers with another grey; across the overlap the repair must rise without a jump."""
    image, mask = np.zeros((64, 900, 3), np.uint8), np.zeros((64, 900), np.uint8)
    mask[30:34] = 1
    answers = iter((0.2, 0.8))

    def disagreeing(image: Floats, mask: Floats) -> Floats:
        return np.full_like(image, next(answers))

    row = repair_picture(image, mask, disagreeing, STRIDE)[32, :, 0].astype(int)
    assert row[0] == 51
    assert row[-1] == 204
    assert np.abs(np.diff(row)).max() < 8  # of 153, over 96 pixels


def test_the_window_shows_context_around_the_hole() -> None:
    mask = np.zeros((400, 400), np.uint8)
    mask[100:150, 10:20] = 1
    assert hole_window(mask) == (50, 200, 0, 70)


@pytest.mark.parametrize("kind", ["torch", "classical"])
def test_inpainters_take_any_size_and_keep_known_pixels(kind: str, photographs: list[Bytes]) -> None:
    inpaint = (
        wrap_generator(build_generator("residual_unet").eval()) if kind == "torch" else open_classical("biharmonic")
    )
    image = photographs[0]
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[40:60, 90:130] = 1
    repaired = inpaint(np.where(mask[..., None] > 0, np.uint8(0), image), mask)
    assert np.array_equal(repaired[mask == 0], image[mask == 0])
    assert np.abs(repaired[mask == 1].astype(int) - image[mask == 1]).mean() < 40
    with pytest.raises(MaskError):
        inpaint(image, mask[1:])


def test_a_hole_wider_than_a_tile_is_filled_from_a_smaller_copy(photographs: list[Bytes]) -> None:
    """No tile inside the hole sees a known pixel; a flat picture must come back flat all the same."""
    image, mask = np.full((1300, 1400, 3), 180, np.uint8), np.zeros((1300, 1400), np.uint8)
    image[:, 700:] = 120
    mask[200:1100, 200:1150] = 1
    inpaint = wrap_generator(build_generator("residual_unet").eval())
    repaired = inpaint(np.where(mask[..., None] > 0, np.uint8(0), image), mask)
    assert np.array_equal(repaired[mask == 0], image[mask == 0])
    assert repaired[mask == 1].min() > 90
    rows = np.abs(np.diff(repaired[650, :, 0].astype(int)))
    assert rows[150:1200].max() < 25


@pytest.mark.parametrize("size", [(40, 33), (600, 1100)])
def test_a_blind_network_sees_the_whole_picture_and_no_mask(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    seen: list[float] = []

    def darken(image: Floats, mask: Floats) -> Floats:
        seen.append(float(mask.max()))
        return image * np.float32(0.5)

    repaired = repair_blindly(picture, darken, 16)
    assert set(seen) == {0.0}
    assert np.abs(repaired - picture / 2).max() <= 1


def test_a_blind_inpainter_under_an_empty_mask_looks_for_damage(photographs: list[Bytes]) -> None:
    picture, empty = photographs[0][:70, :90], np.zeros((70, 90), np.uint8)
    generator = BlindUNet().eval()
    assert generator.core.finder.head.bias is not None
    torch.nn.init.constant_(generator.core.finder.head.bias, 30.0)  # it takes everything for damaged
    assert wrap_generator(generator)(picture, empty).std() < 5
    mask = empty.copy()
    mask[20:40, 20:40] = 1
    repaired = wrap_generator(generator)(picture, mask)
    assert np.array_equal(repaired[mask == 0], picture[mask == 0])  # told where it is, it touches nothing else
