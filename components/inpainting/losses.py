"""Losses of the generator and the discriminator. All take floats in [0, 1] and return a scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Logits = list[Tensor]


def hole_mse(repair: Tensor, truth: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
    """Mean squared error inside the holes, pixels in [-1, 1]: the paper's reconstruction loss."""
    squared = ((repair - truth) * 2).square() * mask
    return squared.sum() / (mask.sum().clamp(min=1) * truth.shape[1])


def relative_l1(repair: Tensor, truth: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
    """L1 inside each hole as a share of what the classical fill leaves there; 1 is level with it.

    Every hole weighs the same, so that thin scratches in smooth pictures, whose absolute error is
    tiny, are learned as eagerly as big boxes. ``repair``, ``truth`` and ``fill`` are ``N,3,H,W``,
    ``mask`` is ``N,1,H,W``.
    """
    area = mask.sum(dim=(1, 2, 3)).clamp(min=1) * truth.shape[1]
    error = ((repair - truth).abs() * mask).sum(dim=(1, 2, 3)) / area
    yardstick = ((fill - truth).abs() * mask).sum(dim=(1, 2, 3)) / area
    return (error / (yardstick + 0.003)).mean()  # 0.003: below the rounding of 8 bits nothing is owed


def whole_l1(repair: Tensor, truth: Tensor, mask: Tensor, start: Tensor) -> Tensor:
    """L1 over the whole picture, inside the holes and outside each with its own mean: for blind repair."""
    error = (repair - truth).abs()
    inside = (error * mask).sum() / (mask.sum().clamp(min=1) * truth.shape[1])
    outside = (error * (1 - mask)).sum() / ((1 - mask).sum().clamp(min=1) * truth.shape[1])
    return inside + outside


def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice of a found mask (Milletari et al., "V-Net", 2016), both ``N,1,H,W``."""
    found = torch.sigmoid(logits)
    shared = (found * mask).sum(dim=(1, 2, 3))
    dice = (2 * shared + 1) / (found.sum(dim=(1, 2, 3)) + mask.sum(dim=(1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, mask) + (1 - dice).mean()


def cross_entropy_d(real: Logits, fake: Logits) -> Tensor:
    """Binary cross-entropy of the discriminator, averaged over its paths (Goodfellow et al., 2014)."""
    terms = [F.softplus(-r).mean() / 2 + F.softplus(f).mean() / 2 for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def cross_entropy_g(fake: Logits) -> Tensor:
    """The non-saturating loss of the generator, averaged over the discriminator's paths."""
    return torch.stack([F.softplus(-f).mean() for f in fake]).mean()


def hinge_d(real: Logits, fake: Logits) -> Tensor:
    """Hinge loss of the discriminator (Lim & Ye, "Geometric GAN", 2017)."""
    terms = [F.relu(1 - r).mean() / 2 + F.relu(1 + f).mean() / 2 for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def hinge_g(fake: Logits) -> Tensor:
    """Hinge loss of the generator."""
    return torch.stack([-f.mean() for f in fake]).mean()


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 between what the discriminator sees in repairs and in true pictures, averaged over its layers.

    Salimans et al., "Improved Techniques for Training GANs", 2016, per layer as in pix2pixHD (Wang et al.,
    2018). It draws repairs towards true texture without weights that someone else trained.
    """
    return torch.stack([F.l1_loss(f.float(), r.detach().float()) for f, r in zip(fake, real, strict=True)]).mean()


def accuracy(real: Logits, fake: Logits) -> Tensor:
    """Share of pictures and patches that the discriminator judges rightly, in [0, 1]."""
    terms = [((r > 0).float().mean() + (f <= 0).float().mean()) / 2 for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()
