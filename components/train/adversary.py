"""What a generator is trained against: a discriminator, and how true pictures and repairs meet before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from components.inpainting import losses
from components.inpainting.batches import Batch
from components.inpainting.networks.context_encoder import Judgement
from components.inpainting.networks.texture_discriminator import TextureDiscriminator

Judge = Callable[[Tensor, Tensor], Judgement]
"""The discriminator: pictures and their holes to its judgement."""


class Opposition(NamedTuple):
    """What D made of a batch."""

    loss: Tensor
    accuracy: Tensor  # share of its judgements that were right, in [0, 1]
    logits: losses.Logits  # of true pictures and repairs


class Adversary(Protocol):
    """A way of training D against repairs, and G against D. Both calls are made under autocast."""

    def build(self, image_size: int) -> nn.Module:
        """A fresh discriminator of pictures of this size, a ``Judge``."""

    def oppose(self, judge: Judge, batch: Batch, repair: Tensor) -> Opposition:
        """What D is to learn from a batch and its detached repairs."""

    def persuade(self, judge: Judge, batch: Batch, repair: Tensor) -> Tensor:
        """The loss of G for its repairs of a batch."""


@dataclass(frozen=True)
class HalfBatches:
    """D learns true pictures from a batch's even rows and repairs from its odd ones, each judged by itself."""

    discriminator: Callable[[int], nn.Module]
    discriminator_loss: Callable[[losses.Logits, losses.Logits], Tensor]
    generator_loss: Callable[[losses.Logits], Tensor]

    def build(self, image_size: int) -> nn.Module:
        """See ``Adversary``."""
        return self.discriminator(image_size)

    def oppose(self, judge: Judge, batch: Batch, repair: Tensor) -> Opposition:
        """See ``Adversary``."""
        real = judge(batch.truth[0::2], batch.mask[0::2]).logits
        fake = judge(repair[1::2], batch.mask[1::2]).logits
        return Opposition(self.discriminator_loss(real, fake), losses.accuracy(real, fake), [*real, *fake])

    def persuade(self, judge: Judge, batch: Batch, repair: Tensor) -> Tensor:
        """See ``Adversary``."""
        return self.generator_loss(judge(repair, batch.mask).logits)


@dataclass(frozen=True)
class Pairs:
    """D compares every repair with the truth under the same hole, patch by patch, within the hole.

    What the picture shows cancels out and what the hole spares does not count, so that D learns within a hundred
    steps what a repair's texture lacks; judging pictures by themselves, it takes thousands. G is also drawn towards
    what D sees in the truth, with weight ``matching``.
    """

    matching: float

    def build(self, image_size: int) -> nn.Module:
        """See ``Adversary``; for pictures of any size."""
        return TextureDiscriminator()

    def oppose(self, judge: Judge, batch: Batch, repair: Tensor) -> Opposition:
        """See ``Adversary``."""
        real, fake = judge(batch.truth, batch.mask).logits, judge(repair, batch.mask).logits
        loss = losses.relativistic(real, fake, batch.mask)
        return Opposition(loss, losses.preference(real, fake, batch.mask), [*real, *fake])

    def persuade(self, judge: Judge, batch: Batch, repair: Tensor) -> Tensor:
        """See ``Adversary``."""
        fake = judge(repair, batch.mask)
        with torch.no_grad():
            real = judge(batch.truth, batch.mask)
        matching = losses.feature_matching(fake.features, real.features, batch.mask)
        return losses.relativistic(fake.logits, real.logits, batch.mask) + self.matching * matching
