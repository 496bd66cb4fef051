"""One repair from bytes to bytes: decode, find the hole, repair, blend, encode; each stage measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from components.inpainting.errors import ImageError, MaskError
from components.inpainting.holes import blend, grow
from components.inpainting.images import Bytes, Picture, PictureFile, check_pair, encode, encode_png
from serving.bodies import Asked
from serving.engine import Engine
from serving.models import Served
from serving.observing import Record
from serving.options import Options
from serving.problems import Problem, picture_problem

FORMATS = ("PNG", "JPEG", "WEBP")
OPAQUE = 128
"""Alpha below this is hole, where no mask is sent."""

MaskSource = Literal["given", "alpha", "found"]


@dataclass(frozen=True)
class Opened:
    """A request whose files' headers were read; nothing of them is decoded yet."""

    image: PictureFile
    mask: PictureFile | None
    options: Options

    @property
    def pixels(self) -> int:
        """Pixels of the picture."""
        return self.image.width * self.image.height


@dataclass(frozen=True)
class Hole:
    """Where to repair, uint8 ``H,W``, as sent or found; who says so; and which model is to do it."""

    mask: Bytes
    source: MaskSource
    engine: Engine


@dataclass(frozen=True)
class Repair:
    """A repaired picture, or just the mask where that was asked for, encoded; and the mask that was used, ``H,W``."""

    content: bytes
    media_type: str
    mask: Bytes
    source: MaskSource
    engine: Engine
    only_mask: bool


def open_files(asked: Asked, max_pixels: int) -> Opened:
    """Read the headers of the files of a request. Raises ``Problem``."""
    name = "image"
    try:
        image = PictureFile(asked.image, formats=FORMATS, max_pixels=max_pixels)
        name = "mask"
        mask = None if asked.mask is None else PictureFile(asked.mask, formats=FORMATS, max_pixels=max_pixels)
        return Opened(image, mask, asked.options)
    except ImageError as error:
        raise picture_problem(name, error) from None


def repair(opened: Opened, served: Served, record: Record) -> Repair:
    """Do what a request asks for, with the models that serve. Raises ``Problem``."""
    options = opened.options
    with record.stage("decode"):
        picture, given = _decode(opened)
        record.facts |= {"width": picture.pixels.shape[1], "height": picture.pixels.shape[0]}
    with record.stage("repair"):
        hole = _hole(picture, given, served, record)
        used = grow(hole.mask, options.grow_mask)
        record.facts |= {"mask_source": hole.source, "format": options.format}
        if options.output == "image":
            repaired = _repaired(picture, hole, used, options, record)
    with record.stage("encode"):
        if options.output == "mask":
            return Repair(encode_mask(used), "image/png", used, hole.source, hole.engine, only_mask=True)
        kind = picture.format if options.format == "same" else options.format.upper()
        alpha = picture.alpha
        if alpha is not None and hole.source == "alpha":  # what was a hole is to be seen now
            alpha = np.where(used == 1, np.uint8(255), alpha)
        content = encode(repaired, kind, options.quality, alpha, picture.icc)
    return Repair(content, f"image/{kind.lower()}", used, hole.source, hole.engine, only_mask=False)


def encode_mask(mask: Bytes) -> bytes:
    """A mask (uint8 ``H,W`` of 0 and 1) as a PNG, white where it is 1."""
    return encode_png(mask * np.uint8(255))


def _decode(opened: Opened) -> tuple[Picture, Bytes | None]:
    name = "image"
    try:
        picture = opened.image.decode()
        name = "mask"
        if opened.mask is None:
            return picture, None
        mask = opened.mask.decode_mask()
        check_pair(picture.pixels, mask)
        return picture, mask
    except ImageError as error:
        raise picture_problem(name, error) from None


def _hole(picture: Picture, given: Bytes | None, served: Served, record: Record) -> Hole:
    """The mask that was sent; else what is transparent; else what a blind model finds."""
    if given is not None:
        return Hole(given, "given", served.model)
    if picture.alpha is not None and (picture.alpha < OPAQUE).any():
        return Hole((picture.alpha < OPAQUE).astype(np.uint8), "alpha", served.model)
    if served.finder is None:
        advice = "Send a mask, white where to repair, or make the damage transparent"
        raise Problem(422, f"{advice}; the model served here cannot find it by itself.")
    return Hole(served.finder.find(picture.pixels, record.wanted), "found", served.finder)


def _repaired(picture: Picture, hole: Hole, used: Bytes, options: Options, record: Record) -> Bytes:
    if not used.any():  # no damage was found
        return picture.pixels
    if used.all():
        error = MaskError("the hole covers the whole picture, so there is nothing to repair it from; leave some of it")
        raise picture_problem("mask", error)
    filled = hole.engine.inpaint(picture.pixels, used, record.wanted)
    return blend(picture.pixels, filled, hole.mask, options.grow_mask, options.feather)
