"""Why a picture or a mask cannot be used; the messages say what to do."""

from __future__ import annotations


class ImageError(ValueError):
    """A picture or mask cannot be used; the message says why and what to do."""


class UnknownFormatError(ImageError):
    """The bytes are no picture, or in a format that is not read."""


class TooLargeError(ImageError):
    """The picture has more pixels, or more of something else, than is read."""


class NoMemoryError(ImageError):
    """The picture needs more memory than is left; the same bytes may be read another time."""


class MaskError(ImageError):
    """The mask has another size than the picture, or no white in it."""


def too_many_pixels(limit: int) -> TooLargeError:
    """The error for a picture of more than ``limit`` pixels."""
    return TooLargeError(f"the picture has more than {limit / 1e6:g} megapixels; scale it down")
