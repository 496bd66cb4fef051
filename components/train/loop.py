"""The adversarial training loop: one step at a time, without a host synchronisation inside a step."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from components.config import TrainConfig
from components.hardware import Compute
from components.inpainting.batches import Batch
from components.inpainting.losses import mask_loss
from components.inpainting.metrics import ssim_of_planes
from components.inpainting.networks import Generator, build_generator
from components.inpainting.networks.blind_unet import BlindRepair
from components.train.recipes import recipe_of
from components.train.state import TrainingState, flatten_optimizer, restore_optimizer
from components.train.world import World

_WARM_UP = 100
_LAST_RATE = 0.02
_AVERAGED_SHARE = 20


@dataclass(frozen=True)
class StepLosses:
    """What one step measured; tensors on the training device, read them only when a line is due."""

    d_loss: Tensor
    d_accuracy: Tensor
    g_loss: Tensor
    repair: Tensor  # N,3,H,W in [0, 1]
    batch: Batch

    def scores(self) -> dict[str, float]:
        """The paper's line as numbers: losses, accuracy in [0, 1], hole MSE on [0, 1] data, SSIM."""
        repair, truth, mask = self.repair.clamp(0, 1), self.batch.truth, self.batch.mask
        squared = ((repair - truth) * mask).square().sum()
        return {
            "d_loss": self.d_loss.item(),
            "d_accuracy": self.d_accuracy.item(),
            "g_loss": self.g_loss.item(),
            "mse": (squared / (mask.sum() * truth.shape[1])).item(),
            "ssim": ssim_of_planes(repair, truth).mean().item(),
        }


@dataclass
class Vitals:
    """Whether the training is well; tensors on the training device, over the steps since they were read."""

    worst: Tensor  # the largest D loss, G loss and norm of G's gradient; NaN where one was NaN
    spread: Tensor  # how far apart D's answers lie in the last step: standard deviation over its logits

    def read(self) -> dict[str, float]:
        """As numbers: ``d_loss``, ``g_loss``, ``gradient_norm``, ``d_spread``."""
        values = [*self.worst.tolist(), self.spread.item()]
        return dict(zip(("d_loss", "g_loss", "gradient_norm", "d_spread"), values, strict=True))


@dataclass
class AdversarialLoop:
    """A generator and its discriminator under training.

    ``step`` trains both on one batch: D on telling true pictures from repairs, as the recipe's adversary has
    it, G on reconstruction plus what D thinks of its repairs. With several processes each passes its share of
    the batch, and gradients are averaged, so that the step is that of the whole batch.
    """

    config: TrainConfig
    image_size: int
    compute: Compute
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        torch.manual_seed(self.config.seed)
        self.recipe = recipe_of(self.config)
        self.num_steps, self.rate_scale = 0, 1.0
        device = self.compute.device.torch
        self.generator = build_generator(self.config.model, **self.recipe.settings).to(device)
        self.discriminator = self.recipe.adversary.build(self.image_size).to(device)
        self._average: Generator = copy.deepcopy(self.generator)
        for network in (self.generator, self.discriminator):
            network.to(memory_format=self.compute.memory_format)  # type: ignore[call-overload]
        self._optimizer = torch.optim.Adam(
            self.generator.parameters(), self.config.learning_rate, betas=self.recipe.betas, fused=True
        )
        rate = self.config.learning_rate * self.recipe.discriminator_rate
        self._d_optimizer = torch.optim.Adam(self.discriminator.parameters(), rate, betas=(0.5, 0.999), fused=True)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.compute.precision == "fp16")
        self.reconstruction = self.recipe.reconstruction
        if self.compute.compile != "off":
            for network in (self.generator.core, self.discriminator):
                network.compile(mode=self.compute.compile, dynamic=False)
            self.reconstruction = torch.compile(self.reconstruction, dynamic=False)
        self._repair = self.world.share(self.generator.core)
        self._judge = self.world.share(self.discriminator)
        self.vitals = self._fresh_vitals()

    @property
    def result(self) -> Generator:
        """The generator to hand on: the running average of the weights where the recipe keeps one."""
        if not self.recipe.ema_decay:
            self._average.load_state_dict(self.generator.state_dict())
        return self._average.eval()

    def step(self, batch: Batch) -> StepLosses:
        """Train on one batch (this process's share of it)."""
        self._begin()
        with self.compute.autocast():
            repair, logits = _answer(self._repair(batch.start, batch.shown))
        d_loss, d_accuracy = self._train_discriminator(batch, repair.detach())
        g_loss, norm = self._train_generator(batch, repair, logits)
        self._scaler.update()
        self.vitals.worst = torch.maximum(self.vitals.worst, torch.stack([d_loss, g_loss, norm]))
        self.num_steps += 1
        self._track_average()
        return StepLosses(d_loss, d_accuracy, g_loss, repair.detach(), batch)

    def warm_up(self, batch: Batch) -> None:
        """Compile what is to be compiled, outside of any step and without a trace in the training."""
        state = self.state([])
        self.step(batch)
        self.restore(state)

    def state(self, history: list[dict[str, float]]) -> TrainingState:
        """Everything that the next step depends on, copied to the host, and the history so far."""
        modules = self._modules.items()
        tensors = {f"{name}/{key}": value for name, module in modules for key, value in module.state_dict().items()}
        tensors |= flatten_optimizer("g_optimizer", self._optimizer)
        tensors |= flatten_optimizer("d_optimizer", self._d_optimizer)
        facts = {"rate_scale": self.rate_scale, "scaler": self._scaler.state_dict(), "compute": self.compute.settings}
        copied = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
        return TrainingState(self.num_steps, copied, list(history), facts)

    def restore(self, state: TrainingState) -> None:
        """Go back to a state of this very training."""
        for name, module in self._modules.items():
            module.load_state_dict(state.under(name))
        restore_optimizer(self._optimizer, state.under("g_optimizer"))
        restore_optimizer(self._d_optimizer, state.under("d_optimizer"))
        self._scaler.load_state_dict(state.facts["scaler"])
        self.num_steps, self.rate_scale = state.num_steps, state.facts["rate_scale"]
        self.vitals = self._fresh_vitals()

    def is_due(self, interval: int) -> bool:
        """Whether what is done every ``interval`` steps, and after the last, is due now."""
        return self.num_steps % interval == 0 or self.num_steps == self.config.steps

    @property
    def _modules(self) -> dict[str, nn.Module]:
        """What has weights, by the names of its tensors in a state."""
        return {"generator": self.generator, "average": self._average, "discriminator": self.discriminator}

    def take_vitals(self) -> Vitals:
        """How the training did since they were last taken."""
        taken, self.vitals = self.vitals, self._fresh_vitals()
        return taken

    def _begin(self) -> None:
        """Seed whatever draws random numbers in this step (dropout) by the step, so that a resumed one draws alike."""
        torch.manual_seed((self.config.seed * 1_000_003 + self.num_steps) * 1_009 + self.world.rank)
        if self.compute.compile == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        self.generator.train()
        self._set_rate()

    def _train_discriminator(self, batch: Batch, repair: Tensor) -> tuple[Tensor, Tensor]:
        self._d_optimizer.zero_grad(set_to_none=True)
        with self.compute.autocast():
            loss, accuracy, logits = self.recipe.adversary.oppose(self._judge, batch, repair)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._d_optimizer)
        self.vitals.spread = torch.cat([x.detach().float().flatten() for x in logits]).std()
        return loss.detach(), accuracy.detach()

    def _train_generator(self, batch: Batch, repair: Tensor, logits: Tensor | None) -> tuple[Tensor, Tensor]:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._generator_loss(batch, repair)
        if logits is not None:
            loss = loss + self.recipe.mask_weight * mask_loss(logits, batch.mask)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        norm = self._clip()
        self._scaler.step(self._optimizer)
        if self._scaler.is_enabled():
            norm = torch.where(norm.isinf(), 0, norm)  # the scaler skips such a step and scales less
        return loss.detach(), norm.detach()

    def _clip(self) -> Tensor:
        """The norm of G's gradient, which is made no longer than the recipe allows."""
        parameters = list(self.generator.parameters())
        norm = nn.utils.get_total_norm(parameter.grad for parameter in parameters if parameter.grad is not None)
        if math.isfinite(self.recipe.clip):  # else it would cost a pass over all gradients to change none
            nn.utils.clip_grads_with_norm_(parameters, self.recipe.clip, norm)
        return norm

    def _generator_loss(self, batch: Batch, repair: Tensor) -> Tensor:
        adversarial = self.config.adversarial_weight
        loss = (1 - adversarial) * self.reconstruction(repair, batch.truth, batch.mask, batch.start)
        if not adversarial:
            return loss
        self.discriminator.requires_grad_(False)
        with self.compute.autocast():
            persuasion = self.recipe.adversary.persuade(self.discriminator, batch, repair)
        self.discriminator.requires_grad_(True)
        return loss + adversarial * persuasion

    def _set_rate(self) -> None:
        warm = share = 1.0
        if self.recipe.cosine:
            warm = min(1.0, (self.num_steps + 1) / _WARM_UP)
            done = min(1.0, self.num_steps / max(self.config.steps, 1))
            share = _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * done)) / 2
        rate = self.config.learning_rate * self.rate_scale
        self._optimizer.param_groups[0]["lr"] = rate * warm * share
        self._d_optimizer.param_groups[0]["lr"] = rate * self.recipe.discriminator_rate

    @torch.no_grad()
    def _track_average(self) -> None:
        """Exponential moving average, quick to forget at the start (as in TensorFlow's EMA with num_updates).

        It reaches back over a twentieth of the training, at most as far as the recipe says.
        """
        if not self.recipe.ema_decay:
            return
        reach = self.config.steps / _AVERAGED_SHARE
        decay = min(self.recipe.ema_decay, reach / (reach + 1), self.num_steps / (self.num_steps + 10))
        averages, current = self._average.state_dict(), self.generator.state_dict()
        torch._foreach_lerp_(list(averages.values()), list(current.values()), 1 - decay)

    def _fresh_vitals(self) -> Vitals:
        device = self.compute.device.torch
        return Vitals(torch.zeros(3, device=device), torch.ones((), device=device))


def _answer(repair: Tensor | BlindRepair) -> tuple[Tensor, Tensor | None]:
    """A generator's repair, float32, and the logits of the damage it found, where it looks for any."""
    if isinstance(repair, Tensor):
        return repair.float(), None
    return repair[0].float(), repair[1].float()
