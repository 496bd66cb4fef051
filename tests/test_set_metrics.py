from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from components.inpainting.images import Bytes
from components.inpainting.set_metrics import diversity, texture_distance


@pytest.fixture
def truths() -> Bytes:
    """Forty pieces of a photograph, ``N,32,32,3``."""
    from skimage import data

    photo, rng = data.astronaut(), np.random.default_rng(0)
    corners = rng.integers(0, 480, (40, 2))
    return np.stack([photo[top : top + 32, left : left + 32] for top, left in corners])


@pytest.fixture
def masks() -> Bytes:
    masks = np.zeros((40, 32, 32), np.uint8)
    masks[:, 8:24, 8:24] = 1
    return masks


def blurred(pictures: Bytes, radius: float) -> Bytes:
    return np.stack([np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(radius))) for p in pictures])


def test_true_repairs_are_as_varied_and_of_the_same_texture(truths: Bytes, masks: Bytes) -> None:
    assert diversity(truths, truths, masks) == 1
    assert texture_distance(truths, truths, masks) == 0
    others = np.roll(truths, 1, axis=0)  # each hole is mended with another picture's content
    assert diversity(others, truths, masks) == pytest.approx(1)
    assert texture_distance(others, truths, masks) == pytest.approx(0, abs=1e-6)


def test_a_blur_is_less_varied_and_farther_the_wider_it_is(truths: Bytes, masks: Bytes) -> None:
    repairs = [blurred(truths, radius) for radius in (0.5, 1, 3)]
    varied = [diversity(repair, truths, masks) for repair in repairs]
    far = [texture_distance(repair, truths, masks) for repair in repairs]
    assert 1 > varied[0] > varied[1] > varied[2] > 0
    assert 0 < far[0] < far[1] < far[2]


def test_noise_is_varied_but_of_another_texture(truths: Bytes, masks: Bytes) -> None:
    noise = np.random.default_rng(0).integers(0, 256, truths.shape).astype(np.uint8)
    assert diversity(noise, truths, masks) > 1
    assert texture_distance(noise, truths, masks) > texture_distance(blurred(truths, 1), truths, masks)


def test_the_same_texture_in_every_hole_is_sharp_and_not_varied(truths: Bytes, masks: Bytes) -> None:
    same = np.broadcast_to(truths[:1], truths.shape)
    assert diversity(same, truths, masks) == pytest.approx(0, abs=1e-9)


def test_half_the_contrast_is_half_as_varied(masks: Bytes) -> None:
    wide = np.random.default_rng(0).choice(np.array([0, 200], np.uint8), (40, 32, 32, 3))
    assert diversity((wide // 2).astype(np.uint8), wide, masks) == pytest.approx(0.5)


def test_empty_holes_have_nothing_to_tell_apart(truths: Bytes, masks: Bytes) -> None:
    assert diversity(blurred(truths, 2), truths, 0 * masks) == 1
    assert texture_distance(blurred(truths, 2), truths, 0 * masks) == 0
