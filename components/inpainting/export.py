"""A generator as ONNX, for any batch, height and width."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from components.inpainting.networks import Generator
from components.inpainting.networks.blind_unet import BlindUNet

ENGINE = "generator.onnx"


def export_onnx(generator: Generator, path: Path) -> None:
    """Write ``generator`` as ONNX with inputs ``image`` (N,3,H,W) and ``mask`` (N,1,H,W), output ``repair``.

    A blind one has a second output, ``likely`` (N,1,H,W): how likely each pixel of the image is damaged.
    Height and width may be any multiples of the generator's stride.
    """
    generator = generator.cpu().eval()
    batch, rows, columns = (torch.export.Dim(name, min=1, max=1024) for name in ("batch", "rows", "columns"))
    shape = {0: batch, 2: generator.stride * rows, 3: generator.stride * columns}
    size = 4 * generator.stride
    example = (torch.rand(2, 3, size, size + generator.stride), torch.zeros(2, 1, size, size + generator.stride))
    with _quiet():
        program = torch.onnx.export(
            _WithFinder(generator) if isinstance(generator, BlindUNet) else generator,
            example,
            dynamo=True,
            dynamic_shapes=(shape, shape),
            input_names=["image", "mask"],
            output_names=["repair", "likely"] if generator.blind else ["repair"],
            verbose=False,
        )
    assert program is not None
    program.save(path)


class _WithFinder(nn.Module):
    """A blind generator that also answers where it finds damage."""

    def __init__(self, generator: BlindUNet) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The repair, and what it takes for damaged."""
        return self.generator(image, mask), self.generator.find(image)


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
