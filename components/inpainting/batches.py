"""Training batches made on the training device, from uint8 pictures that no decoder touches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from components.inpainting.dataset import Shards
from components.inpainting.images import Bytes


class Batches:
    """Draws random pictures under random masks, each flipped and turned at random.

    Parameters
    ----------
    images, masks:
        uint8 ``N,H,W,3`` and ``M,H,W``; every picture of a batch gets a mask of its own. On a GPU, pictures
        that fit into half of its free memory move there as one tensor; else, and on a CPU, a batch's
        pictures are read from the memory-mapped files, and no others.
    device, seed:
        where batches are made, and from which random numbers.
    shuffle_colours:
        also exchange the channels of each batch at random and turn half of the batches negative, so
        that a handful of photographs teaches structure and not their colours.
    """

    def __init__(
        self, images: Shards, masks: Bytes, device: torch.device, seed: int, *, shuffle_colours: bool = False
    ) -> None:
        fits = device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2
        self._resident = torch.from_numpy(np.array(images)).to(device) if fits else None
        self._images = images
        self._masks = torch.from_numpy(masks[:, None]).to(device)
        self._shuffle_colours = shuffle_colours
        self._random = torch.Generator(device).manual_seed(seed)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """``count`` pictures, float ``N,3,H,W`` in [0, 1], and masks, float ``N,1,H,W``."""
        images = self._turn(self._pictures(count).permute(0, 3, 1, 2)).float() / 255
        masks = self._turn(self._masks[self._rows(len(self._masks), count)]).float()
        return self._recolour(images) if self._shuffle_colours else images, masks

    def _pictures(self, count: int) -> Tensor:
        rows = self._rows(len(self._images), count)
        if self._resident is not None:
            return self._resident[rows]
        return torch.from_numpy(self._images.take(rows.cpu().numpy())).to(rows.device)

    def _rows(self, length: int, count: int) -> Tensor:
        return torch.randint(length, (count,), generator=self._random, device=self._masks.device)

    def _turn(self, batch: Tensor) -> Tensor:
        """Mirror each picture left to right by a coin of its own, and transpose half of the batch."""
        coins = torch.rand(len(batch), 1, 1, 1, generator=self._random, device=batch.device) < 0.5
        batch = torch.where(coins, batch.flip(3), batch)
        half = len(batch) // 2
        return torch.cat([batch[:half], batch[half:].transpose(2, 3)])

    def _recolour(self, images: Tensor) -> Tensor:
        order = torch.randperm(3, generator=self._random, device=images.device)
        negative = (torch.rand((), generator=self._random, device=images.device) < 0.5).float()
        return torch.lerp(images[:, order], 1 - images[:, order], negative)
