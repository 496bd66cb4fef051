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
from components.inpainting.networks.residual_unet import ResidualUNet

ENGINE = "generator.onnx"


def export_onnx(generator: Generator, path: Path) -> None:
    """Write ``generator`` as ONNX with inputs ``image`` (N,3,H,W) and ``mask`` (N,1,H,W), output ``repair`` (N,3,H,W).

    More outputs are what it makes on the way, each computed from the inputs and those before it alone, so that an
    engine can cut the graph there: ``likely`` (N,1,H,W), how likely each pixel of the image is damaged, of a blind one;
    ``filled`` (N,3,H,W), the classical fill; ``soft`` (N,1,H,W), the mask of what is filled, of a blind one.
    Height and width may be any multiples of the generator's stride.
    """
    generator = generator.cpu().eval()
    shape = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)  # of which it finds out what they are multiples of
    size = 4 * generator.stride
    example = (torch.rand(2, 3, size, size + generator.stride), torch.zeros(2, 1, size, size + generator.stride))
    staged = _Staged(generator)
    with _quiet():
        program = torch.onnx.export(
            staged,
            example,
            dynamo=True,
            dynamic_shapes=(shape, shape),
            input_names=["image", "mask"],
            output_names=staged.names,
            verbose=False,
        )
    assert program is not None
    program.save(path)


class _Staged(nn.Module):
    """A generator that also answers what it makes on the way: ``names``."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator
        filled = {BlindUNet: ["likely", "filled", "soft"], ResidualUNet: ["filled"]}
        self.names = ["repair", *filled.get(type(generator), [])]

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """A tensor for each of the ``names``."""
        generator = self.generator
        if isinstance(generator, BlindUNet):
            likely = generator.find(image)
            filled, soft = generator.core.fill_found(image, likely, mask)
            return generator.refine(filled, soft), likely, filled, soft
        if isinstance(generator, ResidualUNet):
            filled = generator.fill(image, mask)
            return generator.refine(filled, mask), filled
        return (generator(image, mask),)


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
