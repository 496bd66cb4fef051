"""An exported generator, opened as the server will open it, in the fastest way whose repairs are as expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.inpainting.engines import HALF_PRECISION, open_engine, pick_engine
from components.inpainting.images import ROUNDING, Bytes
from components.inpainting.inpainter import Inpainter, open_session
from components.inpainting.networks import Generator
from components.package.parity import Case, ParityError, Row, check_parity
from components.progress import say

_NUM_TIMED = 2  # pictures


@dataclass(frozen=True)
class Export:
    """An ONNX file ready to repair: ``setting`` is what the server is told of how to run it.

    ``tolerance`` is by how many grey levels of 255 that may change a repair; a blind one can ``find`` damage.
    """

    inpaint: Inpainter
    find: Callable[[Bytes], Bytes] | None
    setting: dict[str, Any]
    tolerance: int


def prove_fastest(engine: Path, generator: Generator, cases: Sequence[Case]) -> tuple[dict[str, Any], list[Row]]:
    """The setting of the fastest way to run an ONNX file on this CPU that holds parity, and how far it is apart.

    Raises the ``ParityError`` of the last way, if none holds it.
    """
    refused: ParityError | None = None
    for export in _fastest_first(engine, generator, cases):
        try:
            return export.setting, check_parity(export.inpaint, cases, export.find, export.tolerance)
        except ParityError as error:
            say(f"not as {export.setting}: {error}")
            refused = error
    assert refused is not None
    raise refused


def finds_damage(engine: Path) -> bool:
    """Whether an ONNX file also answers where a picture is damaged."""
    return any(output.name == "likely" for output in open_session(engine, 1).get_outputs())


def _fastest_first(engine: Path, generator: Generator, cases: Sequence[Case]) -> Iterator[Export]:
    """The fastest way of all on the largest pictures, and the fastest of those that compute in full precision."""
    tried = None
    for tolerance in (HALF_PRECISION, ROUNDING):
        largest = sorted(cases, key=lambda case: case.mask.size)[-_NUM_TIMED:]
        choice = pick_engine(engine, generator.stride, largest, blind=generator.blind, tolerance=tolerance)
        if choice != tried:
            opened = open_engine(engine, generator.stride, choice, blind=generator.blind)
            yield Export(opened.inpaint, opened.find if generator.blind else None, choice.describe(), choice.tolerance)
            opened.close()
        tried = choice
