"""Pictures at the edges of the platform: decode what strangers send, encode, resize, lay out in grids.

Needs numpy and Pillow alone. Inside, pictures are float32 ``N,C,H,W`` in [0, 1]; here they are uint8
``H,W,C`` RGB.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 50_000_000
ROUNDING = 1
"""Grey levels (of 255) by which two computations of one repair may differ."""

_TOO_LARGE = f"the picture has more than {MAX_PIXELS // 1_000_000} megapixels; scale it down"


class ImageError(ValueError):
    """A picture or mask cannot be used; the message says why and what to do."""


class UnknownFormatError(ImageError):
    """The bytes are no picture, or in a format that is not read."""


class TooLargeError(ImageError):
    """The picture has more pixels than are read."""


class MaskError(ImageError):
    """The mask has another size than the picture, or no white in it."""


def read_image(path: Path, *, formats: Sequence[str] = FORMATS) -> Bytes:
    """Read a picture file as uint8 ``H,W,3``. Raises ``ImageError`` naming the file."""
    return _read(path, lambda content: decode_image(content, formats=formats))


def read_mask(path: Path) -> Bytes:
    """Read a mask file as uint8 ``H,W`` of 0 and 1, 1 where it is white. Raises ``ImageError`` naming the file."""
    return _read(path, decode_mask)


def decode_image(content: bytes, *, formats: Sequence[str] = FORMATS) -> Bytes:
    """Decode a picture to uint8 ``H,W,3``, upright (EXIF orientation applied), alpha dropped.

    Only ``formats`` are tried, and the header's size is checked before a pixel is decoded. Raises
    ``ImageError`` for anything that is not one still picture of at most ``MAX_PIXELS`` pixels.
    """
    return np.asarray(_decode(content, formats).convert("RGB"))


def decode_mask(content: bytes, *, formats: Sequence[str] = FORMATS) -> Bytes:
    """Decode a mask to uint8 ``H,W`` of 0 and 1; white, or anything above half grey, is hole."""
    return (np.asarray(_decode(content, formats).convert("L")) >= 128).astype(np.uint8)


def check_pair(image: Bytes, mask: Bytes) -> None:
    """Raise ``MaskError`` unless ``mask`` (``H,W``) has the size of ``image`` (``H,W,3``) and some white."""
    if image.shape[:2] != mask.shape:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
        raise MaskError(
            f"the mask is {mask_width}x{mask_height} pixels but the picture is {width}x{height}; "
            "send a mask of the picture's size"
        )
    if not mask.any():
        raise MaskError("the mask has no white pixel, so nothing would be repaired; paint the damage white (255)")


def encode_png(image: Bytes) -> bytes:
    """Encode uint8 ``H,W,3`` (or ``H,W``) as PNG, lossless."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def resize(image: Bytes, height: int, width: int) -> Bytes:
    """Resize uint8 ``H,W,3`` with an antialiasing Lanczos filter."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def to_planes(images: Bytes) -> Floats:
    """uint8 ``N,H,W,C`` to float32 ``N,C,H,W`` in [0, 1]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def to_bytes(planes: Floats) -> Bytes:
    """Float ``N,C,H,W`` in [0, 1], clipped, to uint8 ``N,H,W,C``, rounded."""
    return np.rint(np.clip(planes, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def composite(original: Bytes, repair: Bytes, mask: Bytes) -> Bytes:
    """The repair inside the hole, the original elsewhere, bit for bit. ``...,H,W,C`` and ``...,H,W``."""
    return np.where(mask[..., None] != 0, repair, original)


def grid(rows: Sequence[Sequence[Bytes]], captions: Sequence[str], *, scale: int = 1, gap: int = 4) -> Bytes:
    """Lay out equal-sized uint8 ``H,W,3`` pictures in rows under column captions, as one picture."""
    height, width = (side * scale for side in rows[0][0].shape[:2])
    header = 16
    sheet = Image.new(
        "RGB",
        (gap + len(rows[0]) * (width + gap), header + gap + len(rows) * (height + gap)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for column, caption in enumerate(captions):
        draw.text((gap + column * (width + gap), 3), caption, fill="black", font=ImageFont.load_default(11))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            tile = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (gap + x * (width + gap), header + gap + y * (height + gap)))
    return np.asarray(sheet)


def _read(path: Path, decode: Callable[[bytes], Bytes]) -> Bytes:
    try:
        return decode(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise ImageError(f"{path} is no picture file; give the path of a PNG, JPEG or WebP picture") from None
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from None


def _decode(content: bytes, formats: Sequence[str]) -> Image.Image:
    readable = ", ".join(formats)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content), formats=list(formats))
        if picture.width * picture.height > MAX_PIXELS:
            raise TooLargeError(_TOO_LARGE)
        if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":  # cameras add previews to those
            raise ImageError("the file holds several frames; send one still picture")
        picture.load()
        return _eight_bit(ImageOps.exif_transpose(picture))
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise TooLargeError(_TOO_LARGE) from None
    except UnidentifiedImageError:
        raise UnknownFormatError(f"this is no picture in a format we read ({readable})") from None
    except (OSError, SyntaxError, ValueError, MemoryError) as error:
        raise ImageError(f"the picture is damaged ({error}); send it again or re-export it") from None


def _eight_bit(picture: Image.Image) -> Image.Image:
    """16-bit and float grey pictures scaled to 8 bits; Pillow's own conversion clips them."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        top = 65535.0 if picture.mode.startswith("I") else max(float(values.max(initial=0)), 1e-9)
        return Image.fromarray(np.rint(np.clip(values / top, 0, 1) * 255).astype(np.uint8))
    return picture
