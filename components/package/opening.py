"""An exported generator, opened as the server will open it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.inpainting.images import Bytes
from components.inpainting.inpainter import Inpainter, open_onnx, usable_cores
from components.inpainting.networks import Generator


@dataclass(frozen=True)
class Export:
    """An ONNX file ready to repair: ``setting`` is what the server is told of how to run it."""

    inpaint: Inpainter
    find: Callable[[Bytes], Bytes] | None
    setting: dict[str, Any]


def open_fastest(engine: Path, generator: Generator) -> Export:
    """Open a generator's ONNX file with the engine setting that is the fastest on this CPU."""
    setting = {"runtime": "onnxruntime", "precision": "fp32", "threads": usable_cores()}
    return Export(open_onnx(engine, generator.stride, blind=generator.blind), None, setting)
