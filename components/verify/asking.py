"""Golden pictures, and what a server makes of them: asked twice, compared, measured."""

from __future__ import annotations

import base64
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt

from components.client import InpaintClient
from components.inpainting.images import (
    Bytes,
    composite,
    decode_image,
    decode_mask,
    encode_png,
    grid,
    read_image,
    read_mask,
    resize,
)
from components.inpainting.metrics import ssim
from components.inpainting.tolerance import COARSE_SSIM, MIN_AGREEMENT
from components.manifest import read_json
from components.report import data_image

BRIGHTER = 32
"""Times that a shown difference is as bright as it is: a few grey levels of 255 are hard to see."""

_PARTS = ("image", "mask", "expected")
_SIDE = 96  # pixels that a picture takes on the page, at most


@dataclass(frozen=True)
class Golden:
    """A picture to send, and what the trainer's own network makes of it, as files.

    Where ``found`` nothing says where the picture is damaged: ``mask`` is what the network found.
    """

    name: str
    found: bool
    image: Path
    mask: Path
    expected: Path

    @classmethod
    def read(cls, folder: Path) -> list[Golden]:
        """The cases of a folder that package wrote."""
        cases = read_json(folder / "cases.json")
        return [
            cls(case["name"], case["found"], *(folder / f"{case['name']}-{part}.png" for part in _PARTS))
            for case in cases
        ]


@dataclass(frozen=True)
class Expected:
    """What the server must hold: grey levels that a hole may differ by, and which model it must say that it is."""

    tolerance: int
    version: str
    digest: str


@dataclass(frozen=True)
class Served:
    """One answer: the picture and the mask that was used, who says that he repaired it, and how long both ways took."""

    picture: Bytes
    again: Bytes  # the picture, asked for as JSON
    mask: Bytes
    version: str
    digest: str
    form_seconds: float
    json_seconds: float


@dataclass(frozen=True)
class Answer:
    """What became of one case: how far from the trainer's repair it is, what is wrong with it, a strip of pictures."""

    case: Golden
    size: str  # width and height in pixels
    difference: int  # the greatest, grey levels of 255
    ssim: float
    agreement: float  # share of pixels that both masks call damaged, or sound
    form_seconds: float
    json_seconds: float
    strip: str  # sent (holes white), expected, answered, difference: a ``data:`` URI
    problems: tuple[str, ...] = ()


@dataclass
class Outcome:
    """All that was learnt of a Bento; ``stopped`` says what kept it from being more."""

    cases: list[Golden]
    answers: list[Answer] = field(default_factory=list)
    seconds_to_start: float = math.nan
    loads_checked: bool = False
    stopped: str = ""

    @property
    def wrong(self) -> list[str]:
        """A sentence for each thing that is wrong with an answer."""
        return [f"{answer.case.name}: {problem}" for answer in self.answers for problem in answer.problems]

    @property
    def failed(self) -> int:
        """How many cases were answered otherwise than they should be."""
        return sum(bool(answer.problems) for answer in self.answers)

    @property
    def verified(self) -> bool:
        """Whether every case was answered, and nothing is wrong."""
        return bool(self.cases) and len(self.answers) == len(self.cases) and self.loads_checked and not self.wrong

    @property
    def worst(self) -> int:
        """The greatest difference under a mask that was sent, grey levels of 255; -1 where none was."""
        return max((answer.difference for answer in self.answers if not answer.case.found), default=-1)

    @property
    def milliseconds(self) -> dict[str, tuple[float, float]]:
        """By the way of asking: the median and the longest time of a request; empty where nothing was answered."""
        if not self.answers:
            return {}
        ways = {"as a form": [a.form_seconds for a in self.answers], "as JSON": [a.json_seconds for a in self.answers]}
        return {way: (1000 * statistics.median(times), 1000 * max(times)) for way, times in ways.items()}


def ask(url: str, case: Golden, expected: Expected) -> Answer:
    """Ask for a repair as a form and as JSON, and compare. Raises ``InpaintError`` where the server refuses."""
    served = _ask_twice(url, case)
    image, mask, wanted = read_image(case.image), read_mask(case.mask), read_image(case.expected)
    difference = np.abs(served.picture.astype(int) - wanted.astype(int))
    answer = Answer(
        case=case,
        size=f"{image.shape[1]}x{image.shape[0]}",
        difference=int(difference.max()),
        ssim=float(ssim(served.picture[None], wanted[None])[0]),
        agreement=float((served.mask == mask).mean()),
        form_seconds=served.form_seconds,
        json_seconds=served.json_seconds,
        strip=_strip(image if case.found else composite(image, np.full_like(image, 255), mask), wanted,
                     served.picture, difference),
    )  # fmt: skip
    return replace(answer, problems=tuple(_problems(answer, served, image, mask, expected)))


def _ask_twice(url: str, case: Golden) -> Served:
    with InpaintClient(url) as client:
        begun = time.monotonic()
        picture = client.inpaint(case.image, None if case.found else case.mask).pixels
        form_seconds = time.monotonic() - begun
    parts = {"image": case.image} | ({} if case.found else {"mask": case.mask})
    sent = {name: base64.b64encode(path.read_bytes()).decode() for name, path in parts.items()}
    begun = time.monotonic()
    answer = httpx.post(f"{url}/inpaint", json=sent, headers={"Accept": "application/json"}, timeout=120)
    json_seconds = time.monotonic() - begun
    answer.raise_for_status()
    told = answer.json()
    again, mask = decode_image(base64.b64decode(told["image"])), decode_mask(base64.b64decode(told["mask"]))
    version, digest = (answer.headers.get(name, "") for name in ("X-Model-Version", "X-Model-Digest"))
    return Served(picture, again, mask, version, digest, form_seconds, json_seconds)


def _problems(answer: Answer, served: Served, image: Bytes, mask: Bytes, expected: Expected) -> Iterator[str]:
    """What is wrong with the answers to one picture, in sentences."""
    if not np.array_equal(served.again, served.picture):
        yield "the answer as JSON is another picture than the one to a form"
    if answer.case.found:
        yield from _found_problems(answer, served, image)
    else:
        yield from _given_problems(answer, served, image, mask, expected)


def _given_problems(answer: Answer, served: Served, image: Bytes, mask: Bytes, expected: Expected) -> Iterator[str]:
    if (served.version, served.digest) != (expected.version, expected.digest):
        yield f"it says that version {served.version or '(none)'} with the digest {served.digest or '(none)'} repaired"
    if not np.array_equal(served.mask, mask):
        yield "the mask that was used is not the one that was sent"
    if not np.array_equal(composite(image, served.picture, mask), served.picture):
        yield "known pixels came back changed"
    if answer.difference > expected.tolerance:
        yield f"the repair is {answer.difference} of 255 from the trainer's"


def _found_problems(answer: Answer, served: Served, image: Bytes) -> Iterator[str]:
    if answer.agreement < MIN_AGREEMENT:
        yield f"it finds other damage than the trainer does, in {1 - answer.agreement:.2%} of the pixels"
    if not np.array_equal(composite(image, served.picture, served.mask), served.picture):
        yield "pixels that it takes for sound came back changed"
    if answer.ssim < COARSE_SSIM:
        yield f"the repair is not the trainer's (SSIM {answer.ssim:.4f})"


def _strip(sent: Bytes, wanted: Bytes, picture: Bytes, difference: npt.NDArray[np.int_]) -> str:
    """The pictures side by side, as small as a page takes them."""
    height, width = wanted.shape[:2]
    shrink = max(1.0, max(height, width) / _SIDE)
    rows, columns = round(height / shrink), round(width / shrink)
    brighter = np.minimum(BRIGHTER * _largest(difference, rows, columns), 255).astype(np.uint8)
    tiles = [*(resize(tile, rows, columns) for tile in (sent, wanted, picture)), brighter]
    return data_image(encode_png(grid([tiles], [""] * len(tiles), header=0)))


def _largest(values: npt.NDArray[np.int_], rows: int, columns: int) -> npt.NDArray[np.int_]:
    """``H,W,3`` reduced to the greatest value of each block, so that a single pixel is not lost."""
    height, width = values.shape[:2]
    by_row = np.maximum.reduceat(values, np.arange(rows) * height // rows, axis=0)
    return np.maximum.reduceat(by_row, np.arange(columns) * width // columns, axis=1)
