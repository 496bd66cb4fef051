"""How each generator is trained: its losses, optimiser and schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from components.hardware.rules import SMALL_NETWORKS_REPAY
from components.inpainting import losses

Reconstruction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """What is particular to a generator; what a user may change is in ``TrainConfig``."""

    reconstruction: Reconstruction
    discriminator_loss: Callable[[losses.Logits, losses.Logits], Tensor]
    generator_loss: Callable[[losses.Logits], Tensor]
    betas: tuple[float, float]
    discriminator_rate: float  # learning rate of D, as a share of G's
    ema_decay: float  # of the running average of the weights, at most; 0: none
    cosine: bool  # warm up over 100 steps, then fall to 2 % along a cosine
    clip: float  # largest norm of G's gradient
    mask_weight: float  # of finding the damage, where the generator has to
    reuse: int  # batches that a filled picture serves, see Batches
    repaid_after: float = SMALL_NETWORKS_REPAY  # steps that earn back compiling on a CPU, see choose_compute


_RESIDUAL = Recipe(
    reconstruction=losses.faithful,
    discriminator_loss=losses.hinge_d,
    generator_loss=losses.hinge_g,
    betas=(0.9, 0.99),
    discriminator_rate=0.1,
    ema_decay=0.998,
    cosine=True,
    clip=1.0,
    mask_weight=0.0,
    reuse=4,
)

RECIPES = {
    # Yamani & Raghava; optimiser after DCGAN (Radford et al., 2016), as context encoders take it.
    "context_encoder": Recipe(
        reconstruction=losses.hole_mse,
        discriminator_loss=losses.cross_entropy_d,
        generator_loss=losses.cross_entropy_g,
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
