"""The discriminator of realistic repairs: judges texture, down to the single pixel."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.inpainting.networks.context_encoder import Judgement

_FOLD = 2  # pixels folded into channels on each side


class TextureDiscriminator(nn.Module):
    """Judges overlapping patches of the composited picture at two scales, knowing where the hole was.

    Its first layer is not strided, so that it sees the finest detail, which a blurred repair lacks. Layers but
    the last are spectrally normalised (Miyato et al., "Spectral Normalization for Generative Adversarial
    Networks", 2018).

    Parameters
    ----------
    widths:
        Channels at half resolution, at a quarter, and so on; the last two are judged, height and width must
        be multiples of ``2 ** len(widths)``.
    """

    def __init__(self, widths: tuple[int, ...] = (48, 96, 96)) -> None:
        super().__init__()
        normalised = nn.utils.parametrizations.spectral_norm
        self.stem = normalised(nn.Conv2d(4 * _FOLD**2, widths[0], 3, padding=1))
        self.down = nn.ModuleList(normalised(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(widths))
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 3, padding=1) for width in widths[-2:])

    def forward(self, image: Tensor, mask: Tensor) -> Judgement:
        """Logits of patches, ``N,1,H/4,W/4`` and ``N,1,H/8,W/8``, and the features of every layer."""
        folded = F.pixel_unshuffle(torch.cat([image * 2 - 1, mask], dim=1), _FOLD)
        features = [F.leaky_relu(self.stem(folded), 0.2)]
        for layer in self.down:
            features.append(F.leaky_relu(layer(features[-1]), 0.2))
        return Judgement([head(seen).float() for head, seen in zip(self.heads, features[-2:], strict=True)], features)
