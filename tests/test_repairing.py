from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.inpainting.images import Bytes, Floats, MaskError
from components.inpainting.inpainter import open_classical, wrap_generator
from components.inpainting.networks import build_generator
from components.inpainting.networks.blind_unet import BlindUNet
from components.inpainting.repairing import find_damage, repair_blindly, repair_picture
from components.inpainting.tiling import LARGE, plan_tiles

STRIDE = 16


def grey(image: Floats, mask: Floats) -> Floats:
    """A network that fills with 0.5, and insists on what it was promised."""
    assert image.shape[0] == mask.shape[0]
    assert image.shape[2] % STRIDE == image.shape[3] % STRIDE == 0
    assert max(image.shape[2:]) <= LARGE.side
    assert (image * mask == 0).all()
    return np.where(mask > 0, np.float32(0.5), image)


def damaged(picture: Bytes, mask: Bytes) -> Bytes:
    return np.where(mask[..., None] > 0, np.uint8(0), picture)


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


@pytest.mark.parametrize("thickness", [4, 40, 150])
def test_neighbouring_tiles_are_blended_without_a_seam(thickness: int) -> None:
    """Each tile answers with another grey; across the overlap the repair must change without a jump."""
    image, mask = np.zeros((600, 1500, 3), np.uint8), np.zeros((600, 1500), np.uint8)
    mask[200 : 200 + thickness] = 1
    answers = iter(np.resize([0.3, 0.7], 1000))

    def disagreeing(image: Floats, mask: Floats) -> Floats:
        return np.full_like(image, next(answers))

    row = repair_picture(image, mask, disagreeing, STRIDE)[200 + thickness // 2, :, 0].astype(int)
    assert row.max() - row.min() > 90
    assert np.abs(np.diff(row)).max() <= 10  # of 102


@pytest.mark.parametrize("kind", ["torch", "classical"])
def test_inpainters_take_any_size_and_keep_known_pixels(kind: str, photographs: list[Bytes]) -> None:
    inpaint = (
        wrap_generator(build_generator("residual_unet").eval()) if kind == "torch" else open_classical("biharmonic")
    )
    image = photographs[0]
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[40:60, 90:130] = 1
    repaired = inpaint(damaged(image, mask), mask)
    assert np.array_equal(repaired[mask == 0], image[mask == 0])
    assert np.abs(repaired[mask == 1].astype(int) - image[mask == 1]).mean() < 40
    with pytest.raises(MaskError):
        inpaint(image, mask[1:])


def test_tiles_and_the_whole_picture_at_once_make_the_same_repair(photographs: list[Bytes]) -> None:
    picture = photographs[1]
    mask = np.zeros(picture.shape[:2], np.uint8)
    for column in range(20, 430):
        mask[30 + column // 2 : 33 + column // 2, column] = 1
    generator = build_generator("residual_unet").eval()
    tiled = wrap_generator(generator)(damaged(picture, mask), mask)
    height, width = (side // STRIDE * STRIDE for side in picture.shape[:2])
    known, holes = damaged(picture, mask)[:height, :width], mask[:height, :width].astype(np.float32)
    planes = torch.from_numpy(known / np.float32(255)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        whole = generator(planes, torch.from_numpy(holes)[None, None])[0].permute(1, 2, 0).numpy() * 255
    difference = np.abs(tiled[:height, :width] - whole)[holes == 1]
    assert difference.mean() < 0.5
    assert difference.max() < 6


def test_a_gradient_comes_back_without_a_step() -> None:
    """A smooth picture, a scratch through many tiles and a wide hole: nowhere a jump that the picture has not."""
    rows, columns = np.mgrid[:700, :1100]
    picture = np.stack([rows / 700, columns / 1100, (rows + columns) / 1800], axis=2) * 200 + 20
    image = np.rint(picture).astype(np.uint8)
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[345:350] = 1
    mask[100:160, 200:290] = 1
    repaired = wrap_generator(build_generator("residual_unet").eval())(damaged(image, mask), mask).astype(int)
    assert np.abs(repaired - image).max() <= 6
    for axis in (0, 1):
        assert np.abs(np.diff(repaired, axis=axis)).max() <= 3


def test_a_hole_wider_than_a_tile_is_filled_from_a_smaller_copy() -> None:
    """No tile inside the hole sees a known pixel; a flat picture must come back flat all the same."""
    image, mask = np.full((1300, 1400, 3), 180, np.uint8), np.zeros((1300, 1400), np.uint8)
    image[:, 700:] = 120
    mask[200:1100, 200:1150] = 1
    repaired = wrap_generator(build_generator("residual_unet").eval())(damaged(image, mask), mask)
    assert np.array_equal(repaired[mask == 0], image[mask == 0])
    assert repaired[mask == 1].min() > 90
    assert repaired[mask == 1].max() < 210
    rows = np.abs(np.diff(repaired[650, :, 0].astype(int)))
    assert rows[150:1200].max() < 25


def test_many_small_tiles_go_in_pairs_and_come_back_as_they_would_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, mask = np.random.default_rng(0), np.zeros((900, 1100), np.uint8)
    image = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    mask[::100, ::100] = 1
    sizes: list[int] = []

    def mean(image: Floats, mask: Floats) -> Floats:
        sizes.append(len(image))
        return np.broadcast_to(image.mean(axis=(2, 3), keepdims=True), image.shape)

    paired = repair_picture(image, mask, mean, STRIDE)
    assert sizes.count(2) > 40
    assert sizes.count(1) <= 2
    assert sum(sizes) == len(plan_tiles(mask, mask))
    monkeypatch.setattr("components.inpainting.repairing._MANY", 1000)
    assert np.array_equal(repair_picture(image, mask, mean, STRIDE), paired)


def test_memory_is_that_of_the_picture_and_not_of_its_bounding_box() -> None:
    """Holes in opposite corners of 12 megapixels: the repair, a byte a pixel, and little more."""
    image, mask = np.zeros((3000, 4000, 3), np.uint8), np.zeros((3000, 4000), np.uint8)
    mask[5:40, 5:40] = mask[2900:2990, 3900:3990] = 1
    tracemalloc.start()
    repair_picture(image, mask, grey, STRIDE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < image.nbytes + 2 * mask.nbytes + 20e6


@pytest.mark.parametrize("size", [(40, 33), (600, 1100)])
def test_a_blind_network_sees_the_whole_picture_and_no_mask(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    seen: list[float] = []

    def darken(image: Floats, mask: Floats) -> Floats:
        seen.append(float(mask.max()))
        return image * np.float32(0.5)

    repaired = repair_blindly(picture, darken, 16)
    assert set(seen) == {0.0}
    assert np.abs(repaired - picture / 2).max() <= 1.5


def test_damage_is_found_in_every_tile() -> None:
    picture = np.zeros((700, 1300, 3), np.uint8)
    picture[100:120] = picture[:, 1200:1210] = 255

    def find(image: Floats, mask: Floats) -> Floats:
        return image[:, :1]

    assert np.array_equal(find_damage(picture, find, STRIDE), (picture[..., 0] == 255).astype(np.uint8))


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
