"""A generator as ONNX, for any batch, height and width."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from components.inpainting.networks import Generator

ENGINE = "generator.onnx"


def export_onnx(generator: Generator, path: Path) -> None:
    """Write ``generator`` as ONNX with inputs ``image`` (N,3,H,W) and ``mask`` (N,1,H,W), output ``repair``.

    Height and width may be any multiples of the generator's stride.
    """
    generator = generator.cpu().eval()
    batch, rows, columns = (torch.export.Dim(name, min=1, max=1024) for name in ("batch", "rows", "columns"))
    shape = {0: batch, 2: generator.stride * rows, 3: generator.stride * columns}
    size = 4 * generator.stride
    example = (torch.rand(2, 3, size, size + generator.stride), torch.zeros(2, 1, size, size + generator.stride))
    with _quiet():
        program = torch.onnx.export(
            generator,
            example,
            dynamo=True,
            dynamic_shapes=(shape, shape),
            input_names=["image", "mask"],
            output_names=["repair"],
            verbose=False,
        )
    assert program is not None
    program.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of torchvision and of shared axis names, which concern nobody here."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
