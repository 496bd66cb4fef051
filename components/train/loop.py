"""The adversarial training loop: one step at a time, without a host synchronisation inside a step."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.config import TrainConfig
from components.inpainting.losses import accuracy
from components.inpainting.metrics import ssim_of_planes
from components.inpainting.networks import Generator, build_discriminator, build_generator
from components.inpainting.networks.residual_unet import ResidualUNet
from components.train.recipes import RECIPES

_WARM_UP = 30
_LAST_RATE = 0.02


@dataclass(frozen=True)
class StepLosses:
    """What one step measured; tensors on the training device, read them only when a line is due."""

    d_loss: Tensor
    d_accuracy: Tensor
    g_loss: Tensor
    repair: Tensor  # N,3,H,W in [0, 1]
    truth: Tensor
    mask: Tensor

    def scores(self) -> dict[str, float]:
        """The paper's line as numbers: losses, accuracy in [0, 1], hole MSE on [0, 1] data, SSIM."""
        repair = self.repair.clamp(0, 1)
        squared = ((repair - self.truth) * self.mask).square().sum()
        return {
            "d_loss": self.d_loss.item(),
            "d_accuracy": self.d_accuracy.item(),
            "g_loss": self.g_loss.item(),
            "mse": (squared / (self.mask.sum() * self.truth.shape[1])).item(),
            "ssim": ssim_of_planes(repair, self.truth).mean().item(),
        }


class AdversarialLoop:
    """A generator and its discriminator under training.

    ``step`` trains both on one batch: D on half a batch of true pictures and half a batch of repairs,
    G on reconstruction plus what D thinks of its repairs.
    """

    def __init__(self, config: TrainConfig, image_size: int, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.recipe = config, RECIPES[config.model]
        self.generator = build_generator(config.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator = build_discriminator(config.model, image_size).to(device)
        self._average: Generator = copy.deepcopy(self.generator)
        self._optimizer = torch.optim.Adam(self.generator.parameters(), config.learning_rate, betas=self.recipe.betas)
        self._d_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), config.learning_rate * self.recipe.discriminator_rate, betas=(0.5, 0.999)
        )
        self.num_steps = 0

    @property
    def result(self) -> Generator:
        """The generator to hand on: the running average of the weights where the recipe keeps one."""
        return (self._average if self.recipe.ema_decay else self.generator).eval()

    def step(self, truth: Tensor, mask: Tensor) -> StepLosses:
        """Train on pictures ``N,3,H,W`` in [0, 1] under masks ``N,1,H,W``."""
        self.generator.train()
        self._set_rate()
        damaged = truth * (1 - mask)
        fill, repair = self._repair(damaged, mask)
        d_loss, d_accuracy = self._train_discriminator(truth, repair.detach(), mask)
        g_loss = self._train_generator(truth, repair, mask, fill)
        self.num_steps += 1
        self._track_average()
        return StepLosses(d_loss, d_accuracy, g_loss, repair.detach(), truth, mask)

    def _repair(self, damaged: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.generator, ResidualUNet):
            fill = self.generator.fill(damaged, mask)
            return fill, self.generator.refine(fill, mask)
        return damaged, self.generator(damaged, mask)

    def _train_discriminator(self, truth: Tensor, repair: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        half = len(truth) // 2
        real = self.discriminator(truth[:half], mask[:half])
        fake = self.discriminator(repair[half:], mask[half:])
        loss = self.recipe.discriminator_loss(real, fake)
        self._d_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._d_optimizer.step()
        return loss.detach(), accuracy(real, fake).detach()

    def _train_generator(self, truth: Tensor, repair: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
        weight = self.config.adversarial_weight
        loss = (1 - weight) * self.recipe.reconstruction(repair, truth, mask, fill)
        if weight:
            self.discriminator.requires_grad_(False)
            loss = loss + weight * self.recipe.generator_loss(self.discriminator(repair, mask))
            self.discriminator.requires_grad_(True)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.generator.parameters(), self.recipe.clip)
        self._optimizer.step()
        return loss.detach()

    def _set_rate(self) -> None:
        if not self.recipe.cosine:
            return
        warm = min(1.0, (self.num_steps + 1) / _WARM_UP)
        done = self.num_steps / max(self.config.steps, 1)
        share = _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * done)) / 2
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * warm * share

    @torch.no_grad()
    def _track_average(self) -> None:
        """Exponential moving average, quick to forget at the start (as in TensorFlow's EMA with num_updates)."""
        if not self.recipe.ema_decay:
            return
        decay = min(self.recipe.ema_decay, self.num_steps / (self.num_steps + 10))
        averages, current = self._average.state_dict(), self.generator.state_dict()
        torch._foreach_lerp_(list(averages.values()), list(current.values()), 1 - decay)
