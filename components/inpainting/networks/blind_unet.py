"""The blind generator: given no mask, it finds the damage by its looks and repairs what it found."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.inpainting.networks.biharmonic import BiharmonicFill
from components.inpainting.networks.gated_unet import GatedUNet
from components.inpainting.networks.residual_unet import Refiner, mean_over_mirror, standardise


class BlindRepair(NamedTuple):
    """What the blind generator makes of ``N`` pictures."""

    picture: Tensor  # N,3,H,W in [0, 1]: the whole output, repaired where it found damage
    logits: Tensor  # N,1,H,W: how sure it is of damage; above 0 it takes it for damaged


class BlindCore(nn.Module):
    """A mask head that finds the damage, a fill of what it found, and a refiner that sees the soft mask.

    After the two stages of VCNet (Wang et al., "VCNet: A Robust Approach to Blind Image Inpainting", 2020),
    the second of which starts from a biharmonic fill here, as in ``ResidualUNet``.
    """

    def __init__(
        self, finder: tuple[int, ...], widths: tuple[int, ...], num_blocks: int, dilations: tuple[int, ...],
        fill: BiharmonicFill,
    ) -> None:  # fmt: skip
        super().__init__()
        self.finder = GatedUNet(3, 1, finder, num_blocks, (1, 2, 4))
        self.fill = fill
        self.refiner = Refiner(widths, num_blocks, dilations)

    def forward(self, image: Tensor, mask: Tensor) -> BlindRepair:
        """A damaged picture, float ``N,3,H,W`` in [0, 1], and what is known of its damage, ``N,1,H,W``, maybe 0."""
        logits = self.find(image)
        return BlindRepair(self.refiner(*self.fill_found(image, torch.sigmoid(logits), mask)), logits)

    def find(self, image: Tensor) -> Tensor:
        """How sure it is of damage, ``N,1,H,W``, see ``BlindRepair.logits``."""
        logits: Tensor = self.finder(standardise(image)[0])
        return logits

    def fill_found(self, image: Tensor, likely: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Fill what is more likely damaged than not; returns the filled picture, and the soft mask it leaves."""
        soft = torch.maximum(likely, mask)
        hole = F.max_pool2d((soft > 0.5).to(image.dtype), 3, stride=1, padding=1).detach()  # with its blurred edge
        return self.fill(image, hole), torch.maximum(soft, hole)


class BlindUNet(nn.Module):
    """Finds damage and repairs it; pixels that it takes for sound change in proportion to its doubt alone.

    Works at any height and width that are multiples of ``stride``.

    Parameters
    ----------
    finder_widths:
        Channels of the mask head, at half resolution, at a quarter, and so on, see ``GatedUNet``.
    widths, num_blocks, dilations:
        Of the refiner, see ``GatedUNet``; the mask head has as many blocks.
    fill_levels, fill_iterations:
        See ``BiharmonicFill``.
    """

    blind = True
    fill = None  # it fills what it finds itself

    def __init__(
        self,
        finder_widths: tuple[int, ...] = (32, 48, 64),
        widths: tuple[int, ...] = (32, 64),
        num_blocks: int = 2,
        dilations: tuple[int, ...] = (1, 2, 4, 8),
        fill_levels: int = 4,
        fill_iterations: int = 8,
    ) -> None:
        super().__init__()
        self.settings = {
            "finder_widths": finder_widths,
            "widths": widths,
            "num_blocks": num_blocks,
            "dilations": dilations,
            "fill_levels": fill_levels,
            "fill_iterations": fill_iterations,
        }
        fill = BiharmonicFill(fill_levels, fill_iterations)
        self.core = BlindCore(tuple(finder_widths), tuple(widths), num_blocks, tuple(dilations), fill)
        self.stride = math.lcm(fill.stride, self.core.finder.stride, self.core.refiner.unet.stride)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Float ``N,3,H,W`` in [0, 1] to the whole repaired picture; ``mask``, ``N,1,H,W``, adds known damage.

        The mean over the mirror picture, as in ``ResidualUNet``.
        """
        return self.refine(*self.core.fill_found(image, self.find(image), mask))

    def refine(self, filled: Tensor, soft: Tensor) -> Tensor:
        """The last third of ``forward``: what ``fill_found`` answers to repairs."""
        return mean_over_mirror(self.core.refiner, filled, soft)

    def find(self, image: Tensor) -> Tensor:
        """How likely each pixel is damaged, ``N,1,H,W`` in [0, 1]: the mean over the picture's four reflections."""
        flips: tuple[list[int], ...] = ([], [3], [2], [2, 3])
        return torch.stack([torch.sigmoid(self.core.find(image.flip(f))).flip(f) for f in flips]).mean(dim=0)
