from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.inpainting.images import (
    COLLECTION_FORMATS,
    FORMATS,
    Bytes,
    ImageError,
    MaskError,
    TooLargeError,
    UnknownFormatError,
    check_pair,
    composite,
    decode_image,
    decode_mask,
    decode_photograph,
    encode_png,
    grid,
    read_image,
    read_mask,
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


GREY = ("1", "L", "LA", "I;16", "I", "F")
MODES = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("TIFF", mode) for mode in (*GREY, "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")),
    *(("JPEG", mode) for mode in ("L", "RGB", "CMYK", "YCbCr")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB", "RGBA")),
    *(("GIF", mode) for mode in ("L", "P")),
    *(("AVIF", mode) for mode in ("L", "RGB", "RGBA")),
    *(("PPM", mode) for mode in ("1", "L", "RGB", "I", "F")),
]


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    grey = np.asarray(picture.convert("L"))
    depth = {"I;16": (257, np.uint16), "I": (257, np.int32), "F": (0.01, np.float32)}
    if mode in depth:
        factor, kind = depth[mode]
        return Image.fromarray((grey * np.float64(factor)).astype(kind))
    return picture.convert(mode, palette=Image.Palette.ADAPTIVE)


def blurred(pixels: Bytes) -> np.ndarray:
    """Every 20x20 block's mean colour, which dither and compression leave alone."""
    return np.asarray(Image.fromarray(pixels).reduce(20), np.float32)


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_every_colour_mode_becomes_rgb_and_a_mask(kind: str, mode: str, photographs: list[Bytes]) -> None:
    photo = Image.fromarray(photographs[0])
    expected = np.asarray(photo.convert("L").convert("RGB") if mode in GREY else photo)
    if mode == "F":  # has no white of its own; the brightest pixel is taken for it
        expected = (expected * (255 / expected.max())).astype(np.uint8)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        content = encoded(in_mode(photo, mode), kind)
        decoded = decode_image(content, formats=COLLECTION_FORMATS)
        assert decoded.dtype == np.uint8 and decoded.shape == photographs[0].shape
        assert np.abs(blurred(decoded) - blurred(expected)).mean() < 3
        photograph = decode_photograph(content, at_least=200)
        assert photograph.pixels.dtype == np.uint8 and np.array_equal(photograph.pixels, decoded)
        assert (photograph.width, photograph.height) == (301, 200)
        mask = decode_mask(content, formats=COLLECTION_FORMATS)
        assert (mask == (np.asarray(Image.fromarray(decoded).convert("L")) >= 128)).mean() > 0.98
    assert not warned


def test_a_png_of_16_bits_a_channel_loses_the_lower_eight(photographs: list[Bytes]) -> None:
    photo = photographs[0]
    rows = np.stack([photo, 255 - photo], axis=-1).reshape(photo.shape[0], -1)  # high byte first
    header = struct.pack(">IIBBBBB", photo.shape[1], photo.shape[0], 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    assert np.array_equal(decode_image(content), photo)
    assert np.array_equal(decode_photograph(content, at_least=200).pixels, photo)


def test_float_pictures_may_hold_what_is_no_number() -> None:
    values = np.array([[np.nan, np.inf, -np.inf], [-3e38, 0.25, 0.5]], np.float32)
    for content in (encoded(Image.fromarray(values), "TIFF"), encoded(Image.fromarray(values), "PPM")):
        decoded = decode_image(content, formats=COLLECTION_FORMATS)
        assert decoded[..., 0].tolist() == [[0, 0, 0], [0, 128, 255]]


def test_transparent_pictures_stand_on_white(photographs: list[Bytes]) -> None:
    photo = photographs[0]
    clear = np.zeros(photo.shape[:2], bool)
    clear[50:90, 60:120] = True
    rgba = np.dstack([photo, np.where(clear, 0, 255).astype(np.uint8)])
    key = np.where(clear[..., None], np.array([1, 2, 3], np.uint8), np.maximum(photo, 4))
    palette = Image.fromarray(photo).quantize(255)
    indices = np.where(clear, np.uint8(255), np.asarray(palette))
    keyed = Image.fromarray(indices, "P")
    keyed.putpalette([*(palette.getpalette() or [])[: 255 * 3], 0, 0, 0])
    files = {
        "alpha": encoded(Image.fromarray(rgba), "PNG"),
        "TIFF alpha": encoded(Image.fromarray(rgba), "TIFF"),
        "WebP alpha": encoded(Image.fromarray(rgba), "WEBP", lossless=True),
        "colour": encoded(Image.fromarray(key), "PNG", transparency=(1, 2, 3)),
        "palette": encoded(keyed, "PNG", transparency=255),
        "palette of alphas": encoded(keyed, "PNG", transparency=bytes([255] * 255 + [0])),
        "GIF": encoded(keyed, "GIF", transparency=255),
    }
    for name, content in files.items():
        photograph = decode_photograph(content, at_least=200)
        assert (photograph.pixels[clear] == 255).all(), name
        assert np.abs(photograph.pixels[~clear].astype(int) - photo[~clear]).mean() < 4, name
        assert "transparent" in photograph.notes, name
        assert decode_image(content, formats=COLLECTION_FORMATS).shape == photo.shape


def test_half_transparent_black_is_half_grey_and_opaque_alpha_is_not_noted() -> None:
    for mode, half, opaque in (("LA", (0, 128), (0, 255)), ("RGBA", (0, 0, 0, 128), (0, 0, 0, 255))):
        photograph = decode_photograph(encoded(Image.new(mode, (8, 8), half), "PNG"), at_least=8)
        assert (photograph.pixels == 127).all() and "transparent" in photograph.notes
        photograph = decode_photograph(encoded(Image.new(mode, (8, 8), opaque), "PNG"), at_least=8)
        assert (photograph.pixels == 0).all() and "transparent" not in photograph.notes


def stored(upright: Bytes, orientation: int) -> Bytes:
    """The pixels a camera stores for a picture that EXIF's ``orientation`` turns upright."""
    turned = np.rot90(upright, {3: 2, 4: 2, 6: 1, 5: 1, 8: -1, 7: -1}.get(orientation, 0))
    return turned[::-1] if orientation in (5, 7) else turned[:, ::-1] if orientation in (2, 4) else turned


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright(kind: str, orientation: int, photographs: list[Bytes]) -> None:
    photo = photographs[0][:, :296]  # so that blocks of 8x8 pixels lie the same way in all eight
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(stored(photo, orientation)), kind, exif=exif)
    for at_least, factor in ((200, 1), (50, 4)):
        photograph = decode_photograph(content, at_least=at_least)
        expected = np.asarray(Image.fromarray(photo).reduce(factor), np.float32)
        assert (photograph.width, photograph.height) == (296, 200)
        assert photograph.pixels.shape == expected.shape
        assert np.abs(photograph.pixels - expected).mean() < 6
        assert ("EXIF-rotated" in photograph.notes) == (orientation != 1)
    upright = decode_photograph(content, at_least=200).pixels
    assert np.array_equal(decode_image(content, formats=COLLECTION_FORMATS), upright)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "P")])
def test_photographs_are_reduced_but_keep_their_size(kind: str, mode: str, photographs: list[Bytes]) -> None:
    large = Image.fromarray(photographs[0]).resize((800, 600), Image.Resampling.BICUBIC)
    content = encoded(in_mode(large, mode), kind)
    for at_least, factor in ((601, 1), (301, 1), (300, 2), (151, 2), (150, 4), (100, 4), (75, 8), (10, 8)):
        photograph = decode_photograph(content, at_least=at_least)
        assert (photograph.width, photograph.height) == (800, 600)
        assert min(photograph.pixels.shape[:2]) >= min(at_least, 600)
        assert photograph.pixels.shape[:2] == (600 // factor, 800 // factor) or factor == 8
        assert np.abs(photograph.pixels - np.asarray(large.resize(photograph.pixels.shape[1::-1]), int)).mean() < 12


def test_a_files_name_says_nothing_of_its_format(tmp_path: Path, photographs: list[Bytes]) -> None:
    photo = Image.fromarray(photographs[0])
    for kind, other in zip(FORMATS, (*FORMATS[1:], FORMATS[0]), strict=True):
        path = tmp_path / f"photo.{other.lower()}"
        path.write_bytes(encoded(photo, kind))
        assert np.abs(read_image(path) - photographs[0].astype(int)).mean() < 6
        assert read_mask(path).shape == photographs[0].shape[:2]


def test_too_many_pixels_are_refused_before_decoding() -> None:
    header = bytearray(encoded(Image.new("1", (8, 8)), "PNG"))
    header[16:24] = (30000).to_bytes(4, "big") * 2
    crc = zlib.crc32(bytes(header[12:29]))
    header[29:33] = crc.to_bytes(4, "big")
    with pytest.raises(TooLargeError, match="more than 50 megapixels"):
        decode_image(bytes(header))


def test_what_is_no_still_picture_is_refused(photographs: list[Bytes]) -> None:
    with pytest.raises(UnknownFormatError, match="no picture"):
        decode_image(b"GIF89a, no")
    with pytest.raises(UnknownFormatError):
        decode_image(encoded(Image.new("RGB", (4, 4)), "GIF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_and_pages_are_refused(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="several frames; send one still picture"):
        decode_image(content, formats=COLLECTION_FORMATS)
    with pytest.raises(ImageError, match="several frames"):
        decode_mask(content, formats=COLLECTION_FORMATS)
    with pytest.raises(ImageError, match="several frames"):
        decode_photograph(content, at_least=8)


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
