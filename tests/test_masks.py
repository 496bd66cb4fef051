from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config import MASK_FAMILIES
from components.inpainting.images import Bytes
from components.inpainting.masks import FAMILIES, coverage, damage, draw_masks, training_masks


def test_config_and_library_name_the_same_families() -> None:
    assert tuple(FAMILIES) == MASK_FAMILIES


@given(st.sampled_from(MASK_FAMILIES), st.sampled_from([32, 64, 128]), st.integers(0, 2**32 - 1))
def test_masks_are_binary_neither_empty_nor_full_and_seeded(family: str, size: int, seed: int) -> None:
    masks = draw_masks(family, 3, size, np.random.default_rng(seed))
    assert masks.shape == (3, size, size)
    assert masks.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 1}
    assert np.all((coverage(masks) > 0) & (coverage(masks) < 1))
    assert np.array_equal(masks, draw_masks(family, 3, size, np.random.default_rng(seed)))


@pytest.mark.parametrize("family", MASK_FAMILIES)
def test_coverage_scales_with_the_picture(family: str) -> None:
    small, large = (coverage(draw_masks(family, 200, size, np.random.default_rng(0))).mean() for size in (64, 256))
    assert 0.5 < small / large < 2.0


def test_every_picture_gets_a_mask_of_its_own() -> None:
    for family in MASK_FAMILIES:
        masks = draw_masks(family, 50, 64, np.random.default_rng(1))
        assert len(np.unique(masks.reshape(50, -1), axis=0)) > 45


@given(st.integers(0, 2**32 - 1))
def test_a_fixed_box_is_a_square_of_that_side(seed: int) -> None:
    mask = draw_masks("box", 1, 32, np.random.default_rng(seed), box_size=8)[0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (len(rows), len(columns), mask.sum()) == (8, 8, 64)


@pytest.mark.parametrize("family", MASK_FAMILIES)
def test_damage_changes_hole_pixels_only(family: str, photographs: list[Bytes]) -> None:
    rng = np.random.default_rng(3)
    image = photographs[1][:64, :64]
    mask = draw_masks(family, 1, 64, rng)[0]
    damaged = damage(image, mask, family, rng)
    assert np.array_equal(damaged[mask == 0], image[mask == 0])
    assert (damaged[mask == 1] != image[mask == 1]).any(axis=-1).mean() > 0.9


def test_thin_overlays_cover_more() -> None:
    one, three = (
        coverage(training_masks(["scratches"], 64, 64, np.random.default_rng(0), thin_overlays=n)).mean()
        for n in (1, 3)
    )
    assert 2 < three / one < 3
