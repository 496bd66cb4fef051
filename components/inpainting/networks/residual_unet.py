"""The default generator: starts from a classical fill and learns what that leaves undone."""

from __future__ import annotations

import math
from itertools import pairwise

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


class Refiner(nn.Module):
    """What the default generator learns: the residual between a classical fill and the truth.

    Blind to brightness and contrast: it sees the filled picture centred and scaled by its own spread,
    and its residual is scaled back, so that faint and strong structure is learned from the same
    examples. The residual is zero before training. See ``ResidualUNet`` for the parameters.
    """

    def __init__(self, widths: tuple[int, ...], num_blocks: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4 * _FOLD**2, widths[0], 3, padding=1)
        outer, steps = widths[:-1], list(pairwise(widths))
        self.encoder = nn.ModuleList(_blocks(width, num_blocks) for width in outer)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in steps)
        self.middle = nn.Sequential(*(GatedBlock(widths[-1], dilation) for dilation in dilations))
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in steps)
        self.decoder = nn.ModuleList(_blocks(width, num_blocks) for width in outer)
        self.head = nn.Conv2d(widths[0], 3 * _FOLD**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, filled: Tensor, mask: Tensor) -> Tensor:
        """Float ``N,3,H,W`` in [0, 1], holes filled already, and ``N,1,H,W`` masks to ``N,3,H,W``."""
        centre = filled.mean(dim=(2, 3), keepdim=True)
        spread = (filled - centre).square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 0.01
        features = self._see(torch.cat([(filled - centre) / spread, mask], dim=1))
        skipped = []
        for encode, down in zip(self.encoder, self.down, strict=True):
            skipped.append(encode(features))
            features = down(skipped[-1])
        features = self.middle(features)
        for decode, up, skip in reversed(list(zip(self.decoder, self.up, skipped, strict=True))):
            features = decode(skip + F.interpolate(up(features), scale_factor=2.0, mode="nearest"))
        return filled + mask * F.pixel_shuffle(self.head(features).float(), _FOLD) * spread

    def _see(self, seen: Tensor) -> Tensor:
        """The first layer, in full precision: smooth skies differ by less than half precision resolves."""
        folded = F.pixel_unshuffle(seen, _FOLD)
        if not torch.is_autocast_enabled(seen.device.type):
            features: Tensor = self.stem(folded)
        else:
            with torch.autocast(seen.device.type, enabled=False):
                features = self.stem(folded)
        return features


class ResidualUNet(nn.Module):
    """Biharmonic fill plus a learned residual, zero before training.

    Works at any height and width that are multiples of ``stride``.

    Parameters
    ----------
    widths:
        Channels at half resolution, at a quarter, and so on.
    num_blocks:
        Gated blocks at each resolution but the coarsest, on the way down and again on the way up.
    dilations:
        One gated block at the coarsest resolution per entry.
    fill_levels, fill_iterations:
        See ``BiharmonicFill``; kept with the weights, which are trained on its answer.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (48, 96),
        num_blocks: int = 2,
        dilations: tuple[int, ...] = (1, 2, 4, 8),
        fill_levels: int = 4,
        fill_iterations: int = 8,
    ) -> None:
        super().__init__()
        self.settings = {
            "widths": widths,
            "num_blocks": num_blocks,
            "dilations": dilations,
            "fill_levels": fill_levels,
            "fill_iterations": fill_iterations,
        }
        self.fill = BiharmonicFill(fill_levels, fill_iterations)
        self.refiner = Refiner(tuple(widths), num_blocks, tuple(dilations))
        self.stride = math.lcm(self.fill.stride, _FOLD * 2 ** (len(widths) - 1))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Float ``N,3,H,W`` in [0, 1] and ``N,1,H,W`` masks to ``N,3,H,W``, known pixels unchanged.

        The repair may leave [0, 1] by a little; whoever makes a picture of it clips.
        """
        repair: Tensor = self.refiner(self.fill(image, mask), mask)
        return repair

    @property
    def core(self) -> nn.Module:
        """What is trained, from a filled picture and its mask to the repair."""
        return self.refiner


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(GatedBlock(width) for _ in range(count)))
