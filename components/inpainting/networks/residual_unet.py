"""The default generator: starts from a classical fill and learns what that leaves undone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from components.inpainting.networks.biharmonic import BiharmonicFill
from components.inpainting.networks.gated_unet import GatedUNet


class Refiner(nn.Module):
    """What the default generator learns: the residual between a classical fill and the truth.

    Blind to brightness and contrast: it sees the filled picture centred and scaled by its own spread,
    and its residual is scaled back, so that faint and strong structure is learned from the same
    examples. The residual is zero before training. See ``ResidualUNet`` for the parameters.
    """

    def __init__(self, widths: tuple[int, ...], num_blocks: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.unet = GatedUNet(4, 3, widths, num_blocks, dilations)

    def forward(self, filled: Tensor, mask: Tensor) -> Tensor:
        """Float ``N,3,H,W`` in [0, 1], holes filled already, and ``N,1,H,W`` masks to ``N,3,H,W``."""
        centred, spread = standardise(filled)
        residual = self.unet(torch.cat([centred, mask], dim=1))
        repair: Tensor = filled + mask * residual * spread
        return repair


def standardise(image: Tensor) -> tuple[Tensor, Tensor]:
    """A picture ``N,3,H,W`` centred per channel and scaled by its spread over all channels, and that spread."""
    centred = image - image.mean(dim=(2, 3), keepdim=True)
    spread = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 0.01
    return centred / spread, spread


def mean_over_mirror(refiner: Refiner, filled: Tensor, mask: Tensor) -> Tensor:
    """The mean of what a refiner makes of pictures and of their mirror pictures."""
    repair: Tensor = refiner(filled, mask)
    mirrored: Tensor = refiner(filled.flip(3), mask.flip(3)).flip(3)
    return (repair + mirrored) / 2


class ResidualUNet(nn.Module):
    """Biharmonic fill plus a learned residual, zero before training.

    Works at any height and width that are multiples of ``stride``.

    Parameters
    ----------
    widths, num_blocks, dilations:
        See ``GatedUNet``.
    fill_levels, fill_iterations:
        See ``BiharmonicFill``; kept with the weights, which are trained on its answer.
    mirrored:
        Whether a repair is the mean of those of the picture and of its mirror picture; see ``forward``.
    """

    blind = False

    def __init__(
        self,
        widths: tuple[int, ...] = (48, 96),
        num_blocks: int = 2,
        dilations: tuple[int, ...] = (1, 2, 4, 8),
        fill_levels: int = 4,
        fill_iterations: int = 8,
        mirrored: bool = True,
    ) -> None:
        super().__init__()
        self.settings = {
            "widths": widths,
            "num_blocks": num_blocks,
            "dilations": dilations,
            "fill_levels": fill_levels,
            "fill_iterations": fill_iterations,
            "mirrored": mirrored,
        }
        self.fill, self.mirrored = BiharmonicFill(fill_levels, fill_iterations), mirrored
        self.refiner = Refiner(tuple(widths), num_blocks, tuple(dilations))
        self.stride = math.lcm(self.fill.stride, self.refiner.unet.stride)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Float ``N,3,H,W`` in [0, 1] and ``N,1,H,W`` masks to ``N,3,H,W``, known pixels unchanged.

        Where ``mirrored``, the mean of what is made of the picture and of its mirror picture (self-ensemble, Lim et
        al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", 2017), whose errors differ: more
        exact, and less sharp, because their textures differ too. The repair may leave [0, 1] by a little; whoever
        makes a picture of it clips.
        """
        return self.refine(self.fill(image, mask), mask)

    def refine(self, filled: Tensor, mask: Tensor) -> Tensor:
        """The second half of ``forward``: pictures whose holes are filled to repairs."""
        return mean_over_mirror(self.refiner, filled, mask) if self.mirrored else self.refiner(filled, mask)

    @property
    def core(self) -> nn.Module:
        """What is trained, from a filled picture and its mask to the repair."""
        return self.refiner
