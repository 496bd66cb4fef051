"""How each generator is trained: its losses, optimiser and schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from components.config import TrainConfig
from components.hardware.rules import SMALL_NETWORKS_REPAY
from components.inpainting import losses
from components.inpainting.networks.context_encoder import PatchDiscriminator, TwoPathDiscriminator
from components.train.adversary import Adversary, HalfBatches, Pairs

Reconstruction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """What is particular to a generator; what a user may change is in ``TrainConfig``."""

    reconstruction: Reconstruction
    adversary: Adversary
    betas: tuple[float, float]
    discriminator_rate: float  # learning rate of D, as a share of G's
    ema_decay: float  # of the running average of the weights, at most; 0: none
    cosine: bool  # warm up over 100 steps, then fall to 2 % along a cosine
    clip: float  # largest norm of G's gradient
    mask_weight: float  # of finding the damage, where the generator has to
    reuse: int  # batches that a filled picture serves, see Batches
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the generator, other than its defaults
    repaid_after: float = SMALL_NETWORKS_REPAY  # steps that earn back compiling on a CPU, see choose_compute


_RESIDUAL = Recipe(
    reconstruction=losses.faithful,
    adversary=HalfBatches(lambda image_size: PatchDiscriminator(), losses.hinge_d, losses.hinge_g),
    betas=(0.9, 0.99),
    discriminator_rate=0.1,
    ema_decay=0.998,
    cosine=True,
    clip=1.0,
    mask_weight=0.0,
    reuse=4,
)

# L1, which leaves texture to the adversary: MSE and SSIM reward the mean of what may have been there.
_REALISTIC = replace(
    _RESIDUAL,
    reconstruction=losses.relative_l1,
    adversary=Pairs(matching=5.0),
    discriminator_rate=0.25,
    settings={"mirrored": False},
)

RECIPES = {
    # Yamani & Raghava; optimiser after DCGAN (Radford et al., 2016), as context encoders take it.
    "context_encoder": Recipe(
        reconstruction=losses.hole_mse,
        adversary=HalfBatches(TwoPathDiscriminator, losses.cross_entropy_d, losses.cross_entropy_g),
        betas=(0.5, 0.999),
        discriminator_rate=1.0,
        ema_decay=0.0,
        cosine=False,
        clip=float("inf"),
        mask_weight=0.0,
        reuse=1,
        repaid_after=float("inf"),  # its convolutions are slower compiled
    ),
    "residual_unet": _RESIDUAL,
    "blind_unet": replace(_RESIDUAL, reconstruction=losses.whole_l1, mask_weight=0.2, reuse=1),
}


def recipe_of(config: TrainConfig) -> Recipe:
    """How the generator of a training is trained."""
    return _REALISTIC if config.quality == "realism" else RECIPES[config.model]
