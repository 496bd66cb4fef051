"""The gated U-Net inside the generators: sees every pixel, at half resolution and coarser."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FOLD = 2  # pixels folded into channels on each side: the network sees every pixel at half the cost


class GatedBlock(nn.Module):
    """A residual gated convolution (Yu et al., "Free-Form Image Inpainting", 2019), ``N,C,H,W`` to the same."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 2 * width, 3, padding=dilation, dilation=dilation)

    def forward(self, features: Tensor) -> Tensor:
        """Add what the gate lets through."""
        content, gate = self._convolve(features)
        return features + F.elu(content) * torch.sigmoid(gate)

    def _convolve(self, features: Tensor) -> tuple[Tensor, ...]:
        """The content and its gate; where exported, by a convolution each, since engines are slow to split channels."""
        if not torch.compiler.is_exporting():
            return self.conv(features).chunk(2, dim=1)  # type: ignore[no-any-return]
        weight, bias, dilation = self.conv.weight, self.conv.bias, self.conv.dilation
        assert bias is not None
        halves = zip(weight.chunk(2), bias.chunk(2), strict=True)
        return tuple(F.conv2d(features, *half, padding=dilation, dilation=dilation) for half in halves)


class GatedUNet(nn.Module):
    """A U-Net of gated blocks, ``N,in,H,W`` to ``N,out,H,W``, zero before training.

    Parameters
    ----------
    num_inputs, num_outputs:
        Channels of what it sees and of what it answers.
    widths:
        Channels at half resolution, at a quarter, and so on.
    num_blocks:
        Gated blocks at each resolution but the coarsest, on the way down and again on the way up.
    dilations:
        One gated block at the coarsest resolution per entry.
    """

    def __init__(
        self, num_inputs: int, num_outputs: int, widths: tuple[int, ...], num_blocks: int, dilations: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.stride = _FOLD * 2 ** (len(widths) - 1)
        self.stem = nn.Conv2d(num_inputs * _FOLD**2, widths[0], 3, padding=1)
        outer, steps = widths[:-1], list(pairwise(widths))
        self.encoder = nn.ModuleList(_blocks(width, num_blocks) for width in outer)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in steps)
        self.middle = nn.Sequential(*(GatedBlock(widths[-1], dilation) for dilation in dilations))
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in steps)
        self.decoder = nn.ModuleList(_blocks(width, num_blocks) for width in outer)
        self.head = nn.Conv2d(widths[0], num_outputs * _FOLD**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, seen: Tensor) -> Tensor:
        """Height and width must be multiples of ``stride``; the answer is float32."""
        features = self._see(seen)
        skipped = []
        for encode, down in zip(self.encoder, self.down, strict=True):
            skipped.append(encode(features))
            features = down(skipped[-1])
        features = self.middle(features)
        for decode, up, skip in reversed(list(zip(self.decoder, self.up, skipped, strict=True))):
            features = decode(skip + F.interpolate(up(features), scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.head(features).float(), _FOLD)

    def _see(self, seen: Tensor) -> Tensor:
        """The first layer, in full precision: smooth skies differ by less than half precision resolves."""
        folded = F.pixel_unshuffle(seen, _FOLD)
        if not torch.is_autocast_enabled(seen.device.type):
            features: Tensor = self.stem(folded)
        else:
            with torch.autocast(seen.device.type, enabled=False):
                features = self.stem(folded)
        return features


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(GatedBlock(width) for _ in range(count)))
