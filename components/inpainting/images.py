"""Pictures at the edges of the platform: decode what strangers send, encode, resize, lay out in grids.

Needs numpy and Pillow alone. Inside, pictures are float32 ``N,C,H,W`` in [0, 1]; here they are uint8
``H,W,C`` RGB.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from components.inpainting.errors import ImageError as ImageError
from components.inpainting.errors import MaskError as MaskError
from components.inpainting.errors import NoMemoryError as NoMemoryError
from components.inpainting.errors import TooLargeError as TooLargeError
from components.inpainting.errors import UnknownFormatError as UnknownFormatError
from components.inpainting.errors import too_many_pixels
from components.inpainting.headers import check_header

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
COLLECTION_FORMATS = (*FORMATS, "GIF", "AVIF", "PPM")
"""What collections of pictures hold besides; the endpoint does not take them."""
MAX_PIXELS = 50_000_000
MAX_PROFILE = 4 << 20
"""Bytes of a colour profile."""
ROUNDING = 1
"""Grey levels (of 255) by which two computations of one repair may differ."""

_ORIENTATION, _TILE_WIDTH, _TILE_LENGTH = 0x0112, 0x0142, 0x0143
_MODE_NOTES = {
    "1": "black and white", "L": "grey", "LA": "grey with alpha", "P": "palette", "PA": "palette with alpha",
    "RGBA": "alpha", "I;16": "16-bit", "I": "16-bit", "I;16B": "16-bit", "F": "float",
}  # fmt: skip


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
    return PictureFile(content, formats=formats).decode_pixels()


def decode_mask(content: bytes, *, formats: Sequence[str] = FORMATS) -> Bytes:
    """Decode a mask to uint8 ``H,W`` of 0 and 1; white, or anything above half grey, is hole.

    Raises ``ImageError`` as ``decode_image`` does.
    """
    return PictureFile(content, formats=formats).decode_mask()


@dataclass(frozen=True)
class Picture:
    """A decoded picture with what a repair keeps: uint8 ``H,W,3``, alpha ``H,W`` or none, an ICC profile or ``b""``."""

    pixels: Bytes
    alpha: Bytes | None
    icc: bytes
    format: str


class PictureFile:
    """A picture file whose header was read and found acceptable, and whose pixels were not decoded yet.

    ``width`` and ``height`` are as stored, before EXIF turns the picture upright. Raises ``ImageError`` as
    ``decode_image`` does, here and when it is decoded.
    """

    def __init__(self, content: bytes, *, formats: Sequence[str] = FORMATS, max_pixels: int = MAX_PIXELS) -> None:
        self._formats = formats
        with _decoder_errors(formats):
            self._opened = _open(content, formats, max_pixels)
            self._icc = _rgb_profile(self._opened)
        self.width, self.height = self._opened.size

    def decode(self) -> Picture:
        """The picture, upright, with its alpha and its profile."""
        with _decoder_errors(self._formats):
            kind = "JPEG" if self._opened.format == "MPO" else str(self._opened.format)
            self._opened.load()
            upright = ImageOps.exif_transpose(self._opened)
            alpha = None
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                alpha = np.asarray(upright.getchannel("A"))
            return Picture(np.asarray(_convertible(upright).convert("RGB")), alpha, self._icc, kind)

    def decode_pixels(self) -> Bytes:
        """The picture, upright, as uint8 ``H,W,3``, alpha dropped."""
        with _decoder_errors(self._formats):
            return np.asarray(_load(self._opened).convert("RGB"))

    def decode_mask(self) -> Bytes:
        """The picture, upright, as a mask, see ``decode_mask``."""
        with _decoder_errors(self._formats):
            return (np.asarray(_load(self._opened).convert("L")) >= 128).astype(np.uint8)


@dataclass(frozen=True)
class Photograph:
    """A decoded picture of a collection.

    ``pixels`` is uint8 ``H,W,3``, upright, and may be reduced; ``width`` and ``height`` are the whole
    picture's, upright. ``notes`` say what had to be done to it, e.g. ``("CMYK", "EXIF-rotated")``.
    """

    pixels: Bytes
    width: int
    height: int
    notes: tuple[str, ...]


def decode_photograph(content: bytes, *, at_least: int) -> Photograph:
    """Decode a picture of a collection, reduced by a power of two that keeps its short side ``at_least`` pixels.

    Grey, palette, CMYK and 16-bit pictures become RGB, transparent ones stand on white. JPEGs are
    reduced by their decoder, which makes large ones several times faster to read. Raises ``ImageError``
    as ``decode_image`` does.
    """
    with _decoder_errors(COLLECTION_FORMATS):
        opened = _open(content, COLLECTION_FORMATS)
        orientation = opened.getexif().get(_ORIENTATION, 1)
        swapped = orientation in range(5, 9) and opened.format != "TIFF"  # whose size is upright from the start
        width, height = opened.size[::-1] if swapped else opened.size
        notes = [_MODE_NOTES.get(opened.mode, opened.mode)] if opened.mode != "RGB" else []
        notes += ["EXIF-rotated"] if orientation in range(2, 9) else []
        _draft(opened, at_least)
        picture = _load(opened)
        if picture.has_transparency_data:
            picture, see_through = _on_white(picture)
            notes += ["transparent"] if see_through else []
        picture = picture.convert("RGB")
        left = _reduction(min(picture.size), at_least)
        return Photograph(np.asarray(picture.reduce(left) if left > 1 else picture), width, height, tuple(notes))


def check_pair(image: Bytes, mask: Bytes) -> None:
    """Raise ``MaskError`` unless ``mask`` (``H,W``) has the size of ``image`` (``H,W,3``) and some white."""
    check_sizes(image, mask)
    if not mask.any():
        raise MaskError("the mask has no white pixel, so nothing would be repaired; paint the damage white (255)")


def check_sizes(image: Bytes, mask: Bytes) -> None:
    """Raise ``MaskError`` unless ``mask`` (``H,W``) has the size of ``image`` (``H,W,3``)."""
    if image.shape[:2] != mask.shape:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
        raise MaskError(
            f"the mask is {mask_width}x{mask_height} pixels but the picture is {width}x{height}; "
            "send a mask of the picture's size"
        )


def encode_png(image: Bytes, icc: bytes = b"") -> bytes:
    """Encode uint8 ``H,W``, ``H,W,3`` or ``H,W,4`` as PNG, lossless, with an ICC profile where there is one."""
    from components.inpainting import png  # which stands on this module's types

    return png.encode(image, icc)


def encode(picture: Bytes, kind: str, quality: int = 90, alpha: Bytes | None = None, icc: bytes = b"") -> bytes:
    """Encode uint8 ``H,W,3`` as ``"PNG"``, ``"WEBP"`` (both lossless) or ``"JPEG"``, with an ICC profile where given.

    ``alpha`` is uint8 ``H,W``; a JPEG, which has none, shows what is transparent on white. ``quality``, 1 to
    100, is the JPEG's.
    """
    pixels = picture if alpha is None else np.dstack([picture, alpha])
    if kind == "PNG":
        return encode_png(pixels, icc)
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if kind == "WEBP":  # exact: what lies under transparent pixels stays
        image.save(buffer, kind, lossless=True, exact=True, quality=20, method=0, icc_profile=icc)
    else:
        flat = image if alpha is None else _on_white(image)[0].convert("RGB")
        flat.save(buffer, kind, quality=quality, icc_profile=icc)
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


def grid(
    rows: Sequence[Sequence[Bytes]], captions: Sequence[str], *, scale: int = 1, gap: int = 4, header: int = 16
) -> Bytes:
    """Lay out equal-sized uint8 ``H,W,3`` pictures in rows under column captions, as one picture."""
    height, width = (side * scale for side in rows[0][0].shape[:2])
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


def _open(content: bytes, formats: Sequence[str], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the header alone; refuse what is no still picture of at most ``max_pixels`` pixels."""
    check_header(content, max_pixels)
    picture = Image.open(io.BytesIO(content), formats=list(formats))
    if max(picture.width * picture.height, _tile_pixels(picture)) > max_pixels:
        raise too_many_pixels(max_pixels)
    # not n_frames, which walks through all frames; MPO is exempt because cameras add previews to their JPEGs
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        raise ImageError("the file holds several frames; send one still picture")
    picture.getexif()
    return picture


def _rgb_profile(picture: Image.Image) -> bytes:
    """The ICC profile, where it is one of an RGB colour space; one of grey or CMYK says nothing of RGB pixels."""
    profile = picture.info.get("icc_profile") or b""
    if len(profile) > MAX_PROFILE:
        raise TooLargeError(f"the colour profile is larger than {MAX_PROFILE >> 20} MB; re-export the picture")
    return profile if profile[16:20] == b"RGB " else b""


def _tile_pixels(picture: Image.Image) -> int:
    """The pixels of one tile of a tiled TIFF, which is decoded whole however small the picture is; else 0."""
    tags = getattr(picture, "tag_v2", {})
    return int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))


def _draft(picture: Image.Image, at_least: int) -> None:
    """Have the decoder of a JPEG reduce it while it decodes."""
    factor = _reduction(min(picture.size), at_least)
    if factor > 1 and picture.format in ("JPEG", "MPO"):
        picture.draft(None, (picture.width // factor, picture.height // factor))


def _load(picture: Image.Image) -> Image.Image:
    """Decode the pixels, upright, in a mode of 8 bits a channel that Pillow converts to RGB and to grey."""
    picture.load()
    return _convertible(ImageOps.exif_transpose(picture))


def _on_white(picture: Image.Image) -> tuple[Image.Image, bool]:
    """A picture with transparency as RGBA on white, and whether anything of it was transparent."""
    rgba = picture.convert("RGBA")
    see_through = rgba.getchannel("A").getextrema() != (255, 255)
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba), see_through


@contextmanager
def _decoder_errors(formats: Sequence[str]) -> Iterator[None]:
    """Whatever a decoder raises on damaged bytes, as ``ImageError``; what it warns of is not printed."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise too_many_pixels(MAX_PIXELS) from None
    except UnidentifiedImageError:
        raise UnknownFormatError(
            f"this is no picture in a format we read ({', '.join(formats)}); convert it to one of them"
        ) from None
    except MemoryError:
        raise NoMemoryError("the picture needs more memory than is left; send a smaller one, or try again") from None
    except Exception as error:  # decoders raise almost anything, RuntimeError and AssertionError included
        reason = str(error) or type(error).__name__
        raise ImageError(f"the picture is damaged ({reason}); send it again or re-export it") from None


def _reduction(side: int, at_least: int) -> int:
    """How many times ``side`` may be halved, as a factor of 1, 2, 4 or 8, and still be ``at_least``."""
    return max((factor for factor in (2, 4, 8) if side // factor >= at_least), default=1)


def _convertible(picture: Image.Image) -> Image.Image:
    """16-bit and float grey scaled to 8 bits, for Pillow clips them; LAB as RGB, for Pillow makes no grey of it."""
    if picture.mode == "LAB":
        return picture.convert("RGB")
    if not picture.mode.startswith("I") and picture.mode != "F":
        return picture
    values = np.array(picture, dtype=np.float32)
    values[~np.isfinite(values)] = 0
    top = 65535.0 if picture.mode.startswith("I") else max(float(values.max(initial=0)), 1e-9)
    np.clip(values, 0, top, out=values)
    values *= np.float32(255 / top)
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))
