from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from components.inpainting.images import Bytes
from components.inpainting.tiling import LARGE, SMALL, Tile, cells_of, cover_all, plan_tiles, shrink, weights_of


def cores(tiles: list[Tile], height: int, width: int) -> Bytes:
    """How many cores every pixel lies in."""
    count = np.zeros((height, width), np.uint8)
    for tile in tiles:
        count[tile.rows, tile.columns] += weights_of(tile, height, width) == 63
    return count


def area(tiles: list[Tile]) -> int:
    return sum((t.rows.stop - t.rows.start) * (t.columns.stop - t.columns.start) for t in tiles)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1400), st.integers(1, 1400), st.integers(0, 2**32 - 1))
def test_every_wanted_pixel_lies_in_a_core(height: int, width: int, seed: int) -> None:
    rng, mask = np.random.default_rng(seed), np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 6)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        tall, wide = rng.choice([1, 3, 20, 90, 400], 2)
        mask[top : top + tall, left : left + wide] = 1
    tiles = plan_tiles(mask, mask)
    assert cores(tiles, height, width)[mask == 1].all()
    assert all(t.rows.stop <= height and t.columns.stop <= width for t in tiles)
    assert all(t.rows.stop - t.rows.start <= LARGE.side for t in tiles)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_tiles_cover_whole_pictures(height: int, width: int) -> None:
    assert cores(cover_all(height, width), height, width).sum() > 0
    covered = np.zeros((height, width), bool)
    for tile in cover_all(height, width):
        covered[tile.rows, tile.columns] = True
    assert covered.all()


def test_scratches_in_opposite_corners_are_a_few_small_tiles() -> None:
    mask = np.zeros((7000, 7000), np.uint8)
    mask[10:14, 20:60] = mask[6900:6950, 6990:6994] = 1
    tiles = plan_tiles(mask, mask)
    assert len(tiles) <= 3
    assert area(tiles) <= 3 * SMALL.side**2


def test_a_speck_is_shown_with_the_same_context_on_all_sides() -> None:
    mask = np.zeros((400, 400), np.uint8)
    mask[200:207, 200:207] = 1
    tile = Tile(slice(172, 236), slice(172, 236), SMALL.margin)
    assert [abs(t.rows.start - tile.rows.start) <= 4 for t in plan_tiles(mask, mask)] == [True]
    assert area(plan_tiles(mask, mask)) == SMALL.side**2


def test_a_long_scratch_costs_its_length_and_not_its_bounding_box() -> None:
    mask = np.zeros((3000, 4000), np.uint8)
    for row in range(3000):
        mask[row, row * 4 // 3 : row * 4 // 3 + 6] = 1
    tiles = plan_tiles(mask, mask)
    assert area(tiles) < 0.03 * mask.size
    assert len(tiles) < 90


def test_scratches_at_any_angle_cost_little_more_than_their_length() -> None:
    """A core of 48 pixels a tile; a tile may begin between cells of 8 and lie at both ends of a scratch."""
    for angle in np.linspace(0, np.pi, 13):
        canvas = Image.new("L", (2400, 2400))
        reach = 1100 * np.array([np.cos(angle), np.sin(angle)])
        ImageDraw.Draw(canvas).line([*(1200 - reach), *(1200 + reach)], fill=1, width=5)
        mask = np.asarray(canvas)
        along = 2200 * max(abs(np.cos(angle)), abs(np.sin(angle)))
        assert area(plan_tiles(mask, mask)) <= 1.6 * (along / 48 + 1) * SMALL.side**2, angle


def test_larger_tiles_replace_small_ones_where_they_cost_less() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[::12] = 1
    assert [tile.rows.stop - tile.rows.start for tile in plan_tiles(mask, mask)] == [256]


def test_thick_holes_get_large_tiles() -> None:
    mask = np.zeros((1200, 1200), np.uint8)
    mask[500:600, 500:600] = 1
    assert area(plan_tiles(mask, mask)) == LARGE.side**2


@pytest.mark.parametrize("which", ["any", "all"])
def test_cells_say_what_their_pixels_are(which: str) -> None:
    mask = (np.random.default_rng(0).random((83, 45)) < (0.02 if which == "any" else 0.98)).astype(np.uint8)
    cells = cells_of(mask, which)
    assert cells.shape == (11, 6)
    for row, column in np.ndindex(cells.shape):
        pixels = mask[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert cells[row, column] == (pixels.any() if which == "any" else pixels.all())


def test_shrinking_stops_at_holes_and_not_at_the_border() -> None:
    cells = np.ones((5, 5), bool)
    assert shrink(cells, 2).all()
    cells[2, 0] = False
    assert shrink(cells, 1).sum() == 25 - 6
