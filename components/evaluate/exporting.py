"""The model as it will be served: exported, and how large and how quick that is."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from components.inpainting.dataset import Split
from components.inpainting.export import export_onnx
from components.inpainting.inpainter import open_onnx, usable_cores
from components.inpainting.networks import Generator
from components.inpainting.scores import Exported

_PICTURES = 16


def export_and_measure(generator: Generator, path: Path, test: Split, family: str) -> Exported:
    """Export a generator to ``path`` and repair test pictures under a family's holes with it, one at a time.

    Moves the generator to the CPU. The first picture is repaired twice and timed once, since ONNX Runtime
    prepares itself during its first call.
    """
    export_onnx(generator, path)
    repair = open_onnx(path, generator.stride, blind=generator.blind)
    pictures = np.asarray(test.damaged(family))[:_PICTURES]
    masks = np.zeros(pictures.shape[:3], np.uint8) if generator.blind else np.asarray(test.masks(family))[:_PICTURES]
    repair(pictures[0], masks[0])
    took = []
    for picture, mask in zip(pictures, masks, strict=True):
        started = time.perf_counter()
        repair(picture, mask)
        took.append(time.perf_counter() - started)
    return Exported(
        megabytes=path.stat().st_size / 1e6, milliseconds=1e3 * statistics.median(took), num_pictures=len(took),
        num_threads=usable_cores(), image_size=pictures.shape[1],
    )  # fmt: skip
