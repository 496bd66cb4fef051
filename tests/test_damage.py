from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.config import MASK_FAMILIES
from components.inpainting.damage import render_damage
from components.inpainting.images import Bytes
from components.inpainting.masks import FAMILIES, MaskMixture


def damaged(photographs: list[Bytes], family: str, seed: int) -> tuple[Bytes, Bytes, Bytes]:
    """A picture, a mask and what the damage makes of them."""
    image, other = photographs[1][:64, :64], photographs[0][:64, :64]
    mask = MaskMixture({"strokes" if family == "custom" else family: 1}, 64).draw(1, np.random.default_rng(seed))[0]
    return image, mask, render_damage(image, mask, family, np.random.default_rng(seed), other)


@pytest.mark.parametrize("family", MASK_FAMILIES)
def test_damage_changes_hole_pixels_only(family: str, photographs: list[Bytes]) -> None:
    changed = []
    for seed in range(8):
        image, mask, result = damaged(photographs, family, seed)
        assert result.dtype == np.uint8
        assert np.array_equal(result[mask == 0], image[mask == 0])
        changed.append((result[mask == 1] != image[mask == 1]).any(axis=-1).mean())
    assert np.mean(changed) > (0.8 if family == "downscale" else 0.95)  # neighbours are equal now and then


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(MASK_FAMILIES), st.integers(0, 2**32 - 1))
def test_damage_is_seeded(family: str, seed: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    one, again = (damaged([image.transpose(1, 0, 2), image], family, seed)[2] for _ in range(2))
    assert np.array_equal(one, again)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "downscale"])
def test_damage_is_not_one_flat_colour(family: str, photographs: list[Bytes]) -> None:
    """Neither within one hole nor from picture to picture."""
    holes = [(mask, result) for _, mask, result in (damaged(photographs, family, seed) for seed in range(12))]
    assert np.mean([len(np.unique(result[mask == 1], axis=0)) > 3 for mask, result in holes]) > 0.6
    assert np.std([result[mask == 1].mean() for mask, result in holes]) > 15


def test_scratches_are_near_white_or_near_black_with_soft_edges(photographs: list[Bytes]) -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    mask = MaskMixture({"strokes": 1}, 64).draw(1, np.random.default_rng(3))[0]
    for seed in range(10):
        result = render_damage(grey, mask, "scratches", np.random.default_rng(seed), photographs[0][:64, :64])
        strength = np.abs(result.astype(int) - 128).mean(-1)
        inner = np.asarray(mask, bool) & (np.roll(mask, 2, 0) & np.roll(mask, -2, 0) & np.roll(mask, 2, 1)).astype(bool)
        edge = np.asarray(mask, bool) & ~(np.roll(mask, 1, 0) & np.roll(mask, -1, 0)).astype(bool)
        assert strength[inner].mean() > 60
        assert strength[edge].mean() < strength[inner].mean()


def test_another_pictures_pixels_stand_in_some_holes(photographs: list[Bytes]) -> None:
    other = photographs[0][:64, :64]
    shares = []
    for seed in range(30):
        _, mask, result = damaged(photographs, "boxes", seed)
        shares.append(float(np.all(result[mask == 1] == other[mask == 1], axis=-1).mean()))
    assert 2 < sum(share > 0.99 for share in shares) < 20


def test_a_downscaled_picture_shows_each_known_pixel_large(photographs: list[Bytes]) -> None:
    image = photographs[1][:64, :64]
    mask = np.ones((64, 64), np.uint8)
    mask[::4, ::4] = 0
    result = render_damage(image, mask, "downscale", np.random.default_rng(0), image)
    assert np.array_equal(result, np.repeat(np.repeat(image[::4, ::4], 4, 0), 4, 1))
