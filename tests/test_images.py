from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from components.inpainting.images import (
    Bytes,
    ImageError,
    MaskError,
    TooLargeError,
    UnknownFormatError,
    check_pair,
    composite,
    decode_image,
    decode_mask,
    encode_png,
    grid,
    to_bytes,
    to_planes,
)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_png_comes_back_bit_for_bit(photographs: list[Bytes]) -> None:
    for photo in photographs:
        assert np.array_equal(decode_image(encode_png(photo)), photo)


def test_planes_and_bytes_are_inverse(photographs: list[Bytes]) -> None:
    batch = photographs[0][None]
    planes = to_planes(batch)
    assert planes.dtype == np.float32
    assert planes.shape == (1, 3, *batch.shape[1:3])
    assert np.array_equal(to_bytes(planes), batch)


def test_exif_orientation_is_applied(photographs: list[Bytes]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise when shown
    content = encoded(Image.fromarray(photographs[0]), "JPEG", exif=exif)
    assert decode_image(content).shape == (301, 200, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_colour_mode_becomes_rgb(mode: str, photographs: list[Bytes]) -> None:
    grey = Image.fromarray(photographs[0]).convert("L")
    picture = Image.fromarray(np.asarray(grey, np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    decoded = decode_image(encoded(picture, "TIFF"))
    assert decoded.shape == photographs[0].shape
    assert abs(decoded.mean() - np.asarray(grey).mean()) < 12


def test_too_many_pixels_are_refused_before_decoding() -> None:
    header = bytearray(encoded(Image.new("1", (8, 8)), "PNG"))
    header[16:24] = (30000).to_bytes(4, "big") * 2
    crc = __import__("zlib").crc32(bytes(header[12:29]))
    header[29:33] = crc.to_bytes(4, "big")
    with pytest.raises(TooLargeError, match="more than 50 megapixels"):
        decode_image(bytes(header))


def test_what_is_no_still_picture_is_refused(photographs: list[Bytes]) -> None:
    with pytest.raises(UnknownFormatError, match="no picture"):
        decode_image(b"GIF89a, no")
    with pytest.raises(UnknownFormatError):
        decode_image(encoded(Image.new("RGB", (4, 4)), "GIF"))
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    with pytest.raises(ImageError, match="several frames"):
        decode_image(encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncation_anywhere_is_an_image_error(kind: str, photographs: list[Bytes]) -> None:
    content = encoded(Image.fromarray(photographs[0][:40, :40]), kind)
    for end in range(0, len(content) - 12, 37):
        with pytest.raises(ImageError):
            decode_image(content[:end])


def test_mask_is_white_above_half_grey() -> None:
    grey = Image.fromarray(np.array([[0, 127], [128, 255]], np.uint8))
    assert decode_mask(encoded(grey, "PNG")).tolist() == [[0, 0], [1, 1]]


def test_mask_of_another_size_names_both_sizes(photographs: list[Bytes]) -> None:
    with pytest.raises(MaskError, match="3x2 pixels but the picture is 301x200"):
        check_pair(photographs[0], np.zeros((2, 3), np.uint8))


def test_composite_takes_the_repair_inside_the_hole_only() -> None:
    original, repair = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 9, np.uint8)
    mask = np.array([[1, 0], [0, 1]], np.uint8)
    assert composite(original, repair, mask)[..., 0].tolist() == [[9, 0], [0, 9]]


def test_grid_shows_every_picture(photographs: list[Bytes]) -> None:
    tile = photographs[0][:10, :10]
    sheet = grid([[tile, 255 - tile]], ["a", "b"], scale=2, gap=3)
    assert np.array_equal(sheet[19:39:2, 3:23:2], tile)
    assert np.array_equal(sheet[19:39:2, 26:46:2], 255 - tile)


def test_a_mask_without_white_is_refused_and_says_why(photographs: list[Bytes]) -> None:
    with pytest.raises(MaskError, match="paint the damage white"):
        check_pair(photographs[0], np.zeros(photographs[0].shape[:2], np.uint8))


def test_a_cameras_picture_with_a_preview_is_one_picture(photographs: list[Bytes]) -> None:
    views = [Image.fromarray(photographs[0]), Image.fromarray(photographs[0][:50])]
    content = encoded(views[0], "MPO", save_all=True, append_images=views[1:])
    assert decode_image(content).shape == photographs[0].shape
