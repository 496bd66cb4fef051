"""The paper's networks, kept faithful: the reference that everyone can check.

Yamani & Raghava, "Image Inpainting Using Generative Adversarial Networks": a context encoder (Pathak
et al., "Context Encoders: Feature Learning by Inpainting", 2016) of four strided convolutions, a
bottleneck with dropout and four deconvolutions; a discriminator whose shared trunk splits into a
whole-image path and a local-texture path (Demir & Unal, "Patch-Based Image Inpainting with Generative
Adversarial Networks", arXiv 1803.07422).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTHS = (64, 128, 256, 512)


class Judgement(NamedTuple):
    """What a discriminator says of ``N`` pictures."""

    logits: list[Tensor]  # float32 ``N,...``, one tensor per path; high means real
    features: list[Tensor]  # what its inner layers saw, for feature matching


class ContextEncoder(nn.Module):
    """The paper's generator: sees the picture with its hole blanked, and draws all of it again.

    Works at any height and width that are multiples of ``stride``.
    """

    blind = False
    stride = 16
    fill = None  # it starts from the blanked picture

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.settings = {"dropout": dropout}
        layers: list[nn.Module] = []
        channels = 3
        for width in _WIDTHS:
            layers += [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
            channels = width
        layers += [nn.Conv2d(channels, channels, 3, 1, 1), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
        for width in (*_WIDTHS[-2::-1], 3):
            layers.append(nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=width == 3))
            layers += [nn.Tanh()] if width == 3 else [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Float ``N,3,H,W`` in [0, 1] and ``N,1,H,W`` masks to ``N,3,H,W``, known pixels unchanged."""
        drawn: Tensor = self.layers((image * 2 - 1) * (1 - mask)).float()
        return torch.lerp(image, (drawn + 1) / 2, mask)

    @property
    def core(self) -> nn.Module:
        """What is trained, from a blanked picture and its mask to the repair: all of it."""
        return self


class TwoPathDiscriminator(nn.Module):
    """The paper's discriminator: a shared trunk, a whole-image path, a local-texture path.

    Sees the composited picture (and no mask); made for one picture size, because its paths end in
    fully connected layers.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*_downward(3, 64, norm=False), *_downward(64, 128))
        side = image_size // 4
        self.whole_image = nn.Sequential(
            *_downward(128, 256), *_downward(256, 512), nn.Flatten(), nn.Linear(512 * (side // 4) ** 2, 1)
        )
        self.local_texture = nn.Sequential(
            nn.Conv2d(128, 256, 3, 1, 1), nn.LeakyReLU(0.2), *_downward(256, 64), nn.Flatten(),
            nn.Linear(64 * (side // 2) ** 2, 256), nn.LeakyReLU(0.2), nn.Linear(256, (side // 2) ** 2),
        )  # fmt: skip

    def forward(self, image: Tensor, mask: Tensor) -> Judgement:
        """Logits of both paths, one whole-image ``N,1`` and one per patch ``N,P``; features of the trunk."""
        shared = self.trunk(image * 2 - 1)
        return Judgement([self.whole_image(shared).float(), self.local_texture(shared).float()], [shared])


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of the composited picture, knowing where the hole was.

    The spectrally normalised patch discriminator of DeepFill v2 (Yu et al., 2019), made small.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        channels = (4, width, 2 * width, 2 * width)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in itertools.pairwise(channels)
        )
        self.head = nn.utils.parametrizations.spectral_norm(nn.Conv2d(2 * width, 1, 3, 1, 1))

    def forward(self, image: Tensor, mask: Tensor) -> Judgement:
        """Logits ``N,1,H/8,W/8`` and the features of every layer."""
        features = [torch.cat([image * 2 - 1, mask], dim=1)]
        for layer in self.layers:
            features.append(F.leaky_relu(layer(features[-1]), 0.2))
        return Judgement([self.head(features[-1]).float()], features[1:])


def _downward(channels: int, width: int, *, norm: bool = True) -> list[nn.Module]:
    """One strided convolution that halves the picture."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=not norm)]
    return [*layers, *([nn.BatchNorm2d(width)] if norm else []), nn.LeakyReLU(0.2)]
