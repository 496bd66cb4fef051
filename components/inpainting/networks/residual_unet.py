"""The default generator: starts from a classical fill and learns what that leaves undone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.inpainting.networks.biharmonic import BiharmonicFill

_FOLD = 2  # pixels folded into channels on each side: the network sees every pixel at half the cost


class GatedBlock(nn.Module):
    """A residual gated convolution (Yu et al., "Free-Form Image Inpainting", 2019), ``N,C,H,W`` to the same."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 2 * width, 3, padding=dilation, dilation=dilation)

    def forward(self, features: Tensor) -> Tensor:
        """Add what the gate lets through."""
        content, gate = self.conv(features).chunk(2, dim=1)
        return features + F.elu(content) * torch.sigmoid(gate)


class ResidualUNet(nn.Module):
    """Biharmonic fill plus a learned residual, zero before training.

    The network is blind to brightness and contrast: it sees the filled picture centred and scaled by
    its own spread, and its residual is scaled back, so that faint and strong structure is learned
    from the same examples. Works at any height and width that are multiples of ``stride``.

    Parameters
    ----------
    widths:
        Channels at half and at quarter resolution.
    num_blocks:
        Gated blocks at half resolution, on the way down and again on the way up.
    dilations:
        One gated block at quarter resolution per entry.
    fill_levels, fill_iterations:
        See ``BiharmonicFill``; kept with the weights, which are trained on its answer.
    """

    def __init__(
        self,
        widths: tuple[int, int] = (32, 64),
        num_blocks: int = 2,
        dilations: tuple[int, ...] = (1, 2, 4, 8),
        fill_levels: int = 4,
        fill_iterations: int = 6,
    ) -> None:
        super().__init__()
        self.settings = {
            "widths": widths,
            "num_blocks": num_blocks,
            "dilations": dilations,
            "fill_levels": fill_levels,
            "fill_iterations": fill_iterations,
        }
        fine, coarse = widths
        self.fill = BiharmonicFill(fill_levels, fill_iterations)
        self.stride = self.fill.stride
        self.stem = nn.Conv2d(4 * _FOLD**2, fine, 3, padding=1)
        self.fine_down = nn.Sequential(*(GatedBlock(fine) for _ in range(num_blocks)))
        self.down = nn.Conv2d(fine, coarse, 4, stride=2, padding=1)
        self.coarse = nn.Sequential(*(GatedBlock(coarse, dilation) for dilation in dilations))
        self.up = nn.Conv2d(coarse, fine, 3, padding=1)
        self.fine_up = nn.Sequential(*(GatedBlock(fine) for _ in range(num_blocks)))
        self.head = nn.Conv2d(fine, 3 * _FOLD**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Float ``N,3,H,W`` in [0, 1] and ``N,1,H,W`` masks to ``N,3,H,W``, known pixels unchanged.

        The repair may leave [0, 1] by a little; whoever makes a picture of it clips.
        """
        return self.refine(self.fill(image, mask), mask)

    def refine(self, filled: Tensor, mask: Tensor) -> Tensor:
        """Add the learned residual to a picture whose holes are filled already."""
        centre = filled.mean(dim=(2, 3), keepdim=True)
        spread = (filled - centre).square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 0.01
        seen = torch.cat([(filled - centre) / spread, mask], dim=1)
        fine = self.fine_down(self.stem(F.pixel_unshuffle(seen, _FOLD)))
        coarse = self.coarse(self.down(fine))
        fine = self.fine_up(fine + F.interpolate(self.up(coarse), scale_factor=2.0, mode="nearest"))
        return filled + mask * F.pixel_shuffle(self.head(fine), _FOLD) * spread
