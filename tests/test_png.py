from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from components.inpainting.images import Bytes, encode_png
from components.inpainting.png import encode


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([None, 3, 4]), st.integers(0, 2**32 - 1))
def test_pillow_reads_what_was_written_bit_for_bit(height: int, width: int, channels: int | None, seed: int) -> None:
    shape = (height, width) if channels is None else (height, width, channels)
    picture = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(np.asarray(read(encode(picture))), picture)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (2100, 1700)])
def test_pictures_of_several_strips(size: tuple[int, int], photographs: list[Bytes]) -> None:
    picture = np.resize(photographs[0], (*size, 3))
    assert np.array_equal(np.asarray(read(encode(picture))), picture)


def test_a_view_with_gaps_is_written_as_it_looks(photographs: list[Bytes]) -> None:
    view = photographs[0][::2, ::-3]
    assert np.array_equal(np.asarray(read(encode(view))), view)


def test_the_colour_profile_comes_back() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = np.zeros((3, 5, 4), np.uint8)
    assert read(encode(picture, profile)).info["icc_profile"] == profile
    assert "icc_profile" not in read(encode(picture)).info


def test_no_larger_than_pillows(photographs: list[Bytes]) -> None:
    for picture in photographs:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", compress_level=3)
        assert len(encode_png(picture)) < 1.15 * len(buffer.getvalue())


def read(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content), formats=["PNG"])
    picture.verify()  # checksums
    return Image.open(io.BytesIO(content))
