from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from components.inpainting.classical import METHODS, repair
from components.inpainting.images import Bytes


def square(size: int, top: int, left: int, side: int) -> Bytes:
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def tiled(tile: Bytes, size: int) -> Bytes:
    return np.tile(tile, (size // len(tile) + 1, size // len(tile) + 1, 1))[:size, :size]


def colours(*values: int) -> Bytes:
    return np.stack([np.array(values, np.uint8)] * 3, axis=-1)


@pytest.mark.parametrize("method", METHODS)
def test_known_pixels_stay_and_the_hole_is_filled(method: str) -> None:
    image = data.astronaut()[100:148, 180:228]
    mask = square(48, 12, 20, 14) | square(48, 0, 0, 5)  # one of them at the border
    damaged = np.where(mask[..., None] > 0, np.uint8(255), image)
    repaired = repair(method, damaged, mask)
    assert repaired.dtype == np.uint8
    assert np.array_equal(repaired[mask == 0], image[mask == 0])
    error = np.abs(repaired.astype(int) - image)[mask > 0].mean()
    assert error < np.abs(damaged.astype(int) - image)[mask > 0].mean() / 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [3, 8])
def test_tiny_pictures_empty_masks_and_pictures_that_are_all_hole(method: str, size: int) -> None:
    image = np.arange(size * size * 3, dtype=np.uint8).reshape(size, size, 3)
    nothing = np.zeros((size, size), np.uint8)
    assert np.array_equal(repair(method, image, nothing), image)
    assert (repair(method, image, nothing + 1) == 128).all()
    corner = square(size, 0, 0, 2)
    assert np.array_equal(repair(method, image, corner)[corner == 0], image[corner == 0])
    nearly = 1 - square(size, 0, 0, 1)
    alone = repair(method, image + 7, nearly)
    assert (alone[0, 0] == image[0, 0] + 7).all()
    if method not in ("telea", "navier_stokes"):  # OpenCV's march leaves some of so small a picture as it is
        assert (alone == alone[0, 0]).all()


@pytest.mark.parametrize("method", METHODS)
def test_what_the_hole_holds_is_not_seen(method: str) -> None:
    image, mask = data.astronaut()[100:132, 180:212], square(32, 10, 12, 8)
    black, white = (np.where(mask[..., None] > 0, np.uint8(value), image) for value in (0, 255))
    assert np.array_equal(repair(method, black, mask), repair(method, white, mask))


def test_mean_fill_is_the_mean_of_what_is_known() -> None:
    image, mask = colours(10, 20, 90, 200)[None].repeat(4, 0), square(4, 0, 3, 4)[:, :4]
    assert (repair("mean", image, mask)[:, 3] == 40).all()


@pytest.mark.parametrize("method", ["harmonic", "biharmonic"])
def test_linear_ramps_are_continued_exactly(method: str) -> None:
    rows, columns = np.indices((24, 24))
    image = np.stack([3 * rows + 2 * columns, 5 * rows, 200 - 4 * columns], axis=-1).astype(np.uint8)
    mask = square(24, 8, 6, 9)
    damaged = np.where(mask[..., None] > 0, np.uint8(0), image)
    assert np.array_equal(repair(method, damaged, mask), image)


def test_a_harmonic_pixel_is_the_mean_of_its_neighbours() -> None:
    image, mask = data.astronaut()[100:132, 180:212], square(32, 10, 12, 8)
    repaired = repair("harmonic", image, mask).astype(float)
    mean = (repaired[:-2, 1:-1] + repaired[2:, 1:-1] + repaired[1:-1, :-2] + repaired[1:-1, 2:]) / 4
    inside = mask[1:-1, 1:-1] > 0
    assert np.abs(mean - repaired[1:-1, 1:-1])[inside].max() <= 1  # both are rounded
    assert np.abs(mean - repaired[1:-1, 1:-1])[~inside].max() > 5


@pytest.mark.parametrize("method", ["texture_synthesis", "exemplar"])
@pytest.mark.parametrize("tile", [
    colours(20, 200, 90, 240, 60)[None].repeat(5, 0),  # stripes
    colours(*range(0, 250, 10)).reshape(5, 5, 3),  # no two pixels of a tile alike
], ids=["stripes", "tiles"])  # fmt: skip
def test_periodic_texture_is_continued_exactly(method: str, tile: Bytes) -> None:
    image, mask = tiled(tile, 48), square(48, 16, 18, 15)
    damaged = np.where(mask[..., None] > 0, np.uint8(128), image)
    assert np.array_equal(repair(method, damaged, mask), image)


def test_texture_synthesis_takes_its_colours_from_the_picture_and_its_chances_from_the_seed() -> None:
    random = np.random.default_rng(0)
    image, mask = random.choice(colours(0, 100, 250), (40, 40)), square(40, 14, 14, 12)
    first, again = (METHODS["texture_synthesis"](image, mask) for _ in range(2))
    assert np.array_equal(first, again)
    assert set(np.unique(first)) == {0, 100, 250}
    other = METHODS["texture_synthesis"](image, mask, seed=1)  # type: ignore[call-arg]
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("turned", [0, 1])
def test_exemplars_continue_a_straight_edge_through_the_hole(turned: int) -> None:
    """The paper's point: structure first, so that a line runs on where smooth fills wash it out."""
    image = np.full((64, 64, 3), 210, np.uint8)
    image[28:35] = (40, 60, 50)
    image, mask = np.rot90(image, turned).copy(), square(64, 20, 20, 24)
    damaged = np.where(mask[..., None] > 0, np.uint8(128), image)
    assert np.array_equal(repair("exemplar", damaged, mask), image)
    smooth = repair("biharmonic", damaged, mask).astype(int)
    assert np.abs(smooth - image)[mask > 0].max() > 30


def test_exemplars_continue_a_diagonal() -> None:
    rows, columns = np.indices((64, 64))
    image = np.where((rows + columns < 64)[..., None], np.uint8(30), np.uint8(220)).repeat(3, axis=-1)
    mask = square(64, 22, 22, 20)
    damaged = np.where(mask[..., None] > 0, np.uint8(128), image)
    wrong = (np.abs(repair("exemplar", damaged, mask).astype(int) - image).max(axis=-1) > 60)[mask > 0].mean()
    assert wrong < 0.05
