from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from components.inpainting.holes import blend, grow
from components.inpainting.images import Bytes, composite


@pytest.mark.parametrize("pixels", [0, 1, 2, 3, 7, 30, 64])
def test_holes_grow_as_by_a_square_structuring_element(pixels: int) -> None:
    mask = (np.random.default_rng(0).random((50, 71)) > 0.995).astype(np.uint8)
    expected = ndimage.grey_dilation(mask, size=(2 * pixels + 1,) * 2, mode="constant")
    assert np.array_equal(grow(mask, pixels), expected)


def test_an_empty_mask_stays_empty() -> None:
    assert not grow(np.zeros((9, 9), np.uint8), 5).any()


@pytest.mark.parametrize(("grown", "feather"), [(0, 0), (0, 9), (4, 0), (4, 2), (4, 4), (3, 32)])
def test_blending_leaves_what_is_known_and_repairs_all_of_the_hole(
    grown: int, feather: int, photographs: list[Bytes]
) -> None:
    image = photographs[1]
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[40:60, 70:90] = mask[0, :] = 1
    hole = grow(mask, grown)
    repair = composite(image, 255 - image, hole)
    blended = blend(image, repair, mask, grown, feather)
    assert np.array_equal(blended[hole == 0], image[hole == 0])
    assert np.array_equal(blended[mask == 1], repair[mask == 1])
    full = grow(mask, grown - min(grown, feather)) == 1
    assert np.array_equal(blended[full], repair[full])


def test_the_repair_fades_evenly() -> None:
    image, repair = np.zeros((1, 9, 3), np.uint8), np.full((1, 9, 3), 200, np.uint8)
    repair[0, [0, 8]] = 0
    mask = np.array([[0, 0, 0, 0, 1, 0, 0, 0, 0]], np.uint8)
    assert blend(image, repair, mask, 3, 3)[0, :, 0].tolist() == [0, 50, 100, 150, 200, 150, 100, 50, 0]
