"""Losses of the generator and the discriminator. All take floats in [0, 1] and return a scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from components.inpainting.metrics import ssim_of_planes

Logits = list[Tensor]

_SMALLEST_HOLE = 0.003  # share of the picture; below it features differ by too little to be scaled up


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
    error, yardstick = (_mean_in_holes((picture - truth).abs(), mask) for picture in (repair, fill))
    return (error / (yardstick + 0.003)).mean()  # 0.003: below the rounding of 8 bits nothing is owed


def relative_log_mse(repair: Tensor, truth: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
    """Logarithm of the MSE in each hole as a share of the classical fill's: PSNR up to a factor; 0 is level with it."""
    error, yardstick = (_mean_in_holes((picture - truth).square(), mask) for picture in (repair, fill))
    return ((error + 1e-5) / (yardstick + 1e-5)).log().mean()


def faithful(repair: Tensor, truth: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
    """What repairs are judged by: the median of what may have been there (L1), its mean (MSE), and SSIM.

    L1 alone learns fastest; the mean is what MSE and PSNR reward in wide holes, where a repair must guess, and
    both together blur more than SSIM likes (Zhao et al., "Loss Functions for Image Restoration with Neural
    Networks", 2017). Negative where the repair is far better than the classical fill.
    """
    unlike = 1 - ssim_of_planes(repair.clamp(0, 1), truth).mean()
    return relative_l1(repair, truth, mask, fill) + 0.5 * relative_log_mse(repair, truth, mask, fill) + 5 * unlike


def whole_l1(repair: Tensor, truth: Tensor, mask: Tensor, start: Tensor) -> Tensor:
    """L1 over the whole picture, inside the holes and outside each with its own mean: for blind repair."""
    error = (repair - truth).abs()
    inside = (error * mask).sum() / (mask.sum().clamp(min=1) * truth.shape[1])
    outside = (error * (1 - mask)).sum() / ((1 - mask).sum().clamp(min=1) * truth.shape[1])
    return inside + outside


def _mean_in_holes(error: Tensor, mask: Tensor) -> Tensor:
    """The mean over each picture's hole of ``N,C,H,W``, as ``N``."""
    return (error * mask).sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)).clamp(min=1) * error.shape[1])


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


def relativistic(better: Logits, worse: Logits, mask: Tensor) -> Tensor:
    """How little the first of two pictures is preferred, softplus of the difference of their patches' logits.

    The relativistic pairing loss (Jolicoeur-Martineau, "On Relativistic GANs", 2020, in the form of Huang et al.,
    "The GAN is dead; long live the GAN!", 2024), of D with the true picture as the better one, of G with its repair.
    Both pictures are the same but in the hole, so that what they show cancels out. Patches weigh by their share
    of the hole ``mask``, as in the soft mask-guided PatchGAN of AOT-GAN (Zeng et al., "Aggregated Contextual
    Transformations for High-Resolution Image Inpainting", 2021): outside it there is nothing to tell apart. Every
    hole weighs the same.
    """
    return torch.stack([_mean_over_holes(F.softplus(w - b), mask) for b, w in zip(better, worse, strict=True)]).mean()


def preference(better: Logits, worse: Logits, mask: Tensor) -> Tensor:
    """Share of the hole's patches in which the first of two pictures is preferred, in [0, 1]; see ``relativistic``."""
    terms = [_mean_over_holes((b > w).float(), mask) for b, w in zip(better, worse, strict=True)]
    return torch.stack(terms).mean()


def feature_matching(fake: list[Tensor], real: list[Tensor], mask: Tensor) -> Tensor:
    """L1 between what the discriminator sees in repairs and in true pictures, averaged over its layers.

    Salimans et al., "Improved Techniques for Training GANs", 2016, per layer as in pix2pixHD (Wang et al.,
    2018). It draws repairs towards true texture without weights that someone else trained. As a share of the
    truth's features and of the hole ``mask``, so that layers and holes weigh the same.
    """
    hole = mask.mean(dim=(1, 2, 3)).clamp(min=_SMALLEST_HOLE)
    terms = []
    for f, r in zip(fake, real, strict=True):
        seen = r.detach().float()
        unlike = (f.float() - seen).abs().mean(dim=(1, 2, 3)) / seen.abs().mean(dim=(1, 2, 3)).clamp(min=1e-6)
        terms.append((unlike / hole).mean())
    return torch.stack(terms).mean()


def _mean_over_holes(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over each hole of a map ``N,1,h,w``, coarser than the mask ``N,1,H,W``, and over pictures."""
    weights = F.adaptive_avg_pool2d(mask, (values.shape[2], values.shape[3]))
    means = (values * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3)).clamp(min=1e-6)
    return means.mean()


def accuracy(real: Logits, fake: Logits) -> Tensor:
    """Share of pictures and patches that the discriminator judges rightly, in [0, 1]."""
    terms = [((r > 0).float().mean() + (f <= 0).float().mean()) / 2 for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()
