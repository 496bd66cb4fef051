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
    with torch.inference_mode():
        names = list(_stages(generator, *example))
    with _quiet():
        program = torch.onnx.export(
            _Staged(generator),
            example,
            dynamo=True,
            dynamic_shapes=(shape, shape),
            input_names=["image", "mask"],
            output_names=names,
            verbose=False,
        )
    assert program is not None
    program.save(path)


class _Staged(nn.Module):
    """A generator that answers what ``_stages`` says."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The repair first."""
        return tuple(_stages(self.generator, image, mask).values())


def _stages(generator: Generator, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The repair, and what is made on the way to it, by their names in ``export_onnx``."""
    if isinstance(generator, BlindUNet):
        likely = generator.find(image)
        filled, soft = generator.core.fill_found(image, likely, mask)
        return {"repair": generator.refine(filled, soft), "likely": likely, "filled": filled, "soft": soft}
    if isinstance(generator, ResidualUNet):
        filled = generator.fill(image, mask)
        return {"repair": generator.refine(filled, mask), "filled": filled}
    return {"repair": generator(image, mask)}


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
