"""Damage painted onto batches on the training device, for blind repair to learn from.

What ``damage.py`` paints, a family at a time and for people to see, is what it is tested on; this is rougher
and more varied. One flat colour would make the damage trivial to find and would not transfer (Wang et al.,
"VCNet: A Robust Approach to Blind Image Inpainting", 2020), so other pictures' pixels show through holes, paint
has grain, and its edges may be soft.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_GRAIN = 0.06  # standard deviation of paint's grain, at most
_BLURRED, _FAINT = 0.4, 0.25  # shares of pictures whose damage has soft edges, or lets the picture through


def paint_damage(truth: Tensor, mask: Tensor, random: torch.Generator) -> Tensor:
    """Pictures, float ``N,3,H,W`` in [0, 1], damaged where the masks, ``N,1,H,W``, are 1.

    Each picture gets one kind of its own: paint of any colour, black or white, noise, another picture of the
    batch, or the picture itself moved. Known pixels stay as they are.
    """
    count, device = len(truth), truth.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random, device=device)

    colour = uniform(count, 3, 1, 1)
    extreme = (uniform(count, 1, 1, 1) < 0.5).float() * 0.85 + 0.15 * uniform(count, 3, 1, 1)
    grain = torch.randn(truth.shape, generator=random, device=device) * _GRAIN * uniform(count, 1, 1, 1)
    shift = int(
        torch.randint(1, truth.shape[2], (), generator=random, device="cpu" if device.type == "cpu" else device)
    )
    kinds = torch.stack([
        (colour + grain).expand_as(truth), (extreme + grain).expand_as(truth), uniform(*truth.shape),
        truth.roll(1, 0), truth.roll((shift, shift // 2 + 1), (2, 3)),
    ])  # fmt: skip
    shares = torch.tensor([0.3, 0.35, 0.1, 0.15, 0.1], device=device)
    chosen = torch.multinomial(shares, count, replacement=True, generator=random)
    painted = kinds[chosen, torch.arange(count, device=device)].clamp(0, 1)
    return torch.lerp(truth, painted, mask * _strength(mask, uniform(4, count, 1, 1, 1)))


def _strength(mask: Tensor, draws: Tensor) -> Tensor:
    """How opaque the paint is, ``N,1,H,W`` in [0.4, 1]: fading towards the hole's edge, or thin all over, or full."""
    soft = F.avg_pool2d(mask, 3, stride=1, padding=1, count_include_pad=False).clamp(min=0.4)
    strength = torch.where(draws[0] < _BLURRED, soft, torch.ones_like(mask))
    return strength * torch.where(draws[1] < _FAINT, 0.6 + 0.4 * draws[2], torch.ones_like(draws[2]))
