"""Training batches made on the training device, from uint8 pictures that no decoder touches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.inpainting.dataset import Shards
from components.inpainting.images import Bytes

Fill = Callable[[Tensor, Tensor], Tensor]
Painter = Callable[[Tensor, Tensor, torch.Generator], Tensor]

_DRAWS_IN_BLOCK = 1024  # pictures and holes that are gathered and filled together
_PIXELS_AT_ONCE = 1 << 17  # of the holes that are filled together on a CPU; more falls out of its cache


@dataclass(frozen=True)
class Batch:
    """Pictures to train on, floats on the training device."""

    truth: Tensor  # N,3,H,W in [0, 1]
    mask: Tensor  # N,1,H,W, 1 = hole
    start: (
        Tensor  # N,3,H,W: what the generator starts from: a classical fill, or the hole blanked, or damage painted in
    )
    shown: Tensor  # N,1,H,W: the mask as the generator sees it; empty where it has to find the damage itself

    def share(self, rank: int, num_ranks: int) -> Batch:
        """The rows of one of several processes that train on this batch together."""
        size = len(self.truth) // num_ranks
        rows = slice(rank * size, (rank + 1) * size)
        return Batch(self.truth[rows], self.mask[rows], self.start[rows], self.shown[rows])


class Batches:
    """Random pictures under random masks; every batch is a function of the seed and its number alone.

    So a resumed training goes on with the batch it would have had, with no generator state to keep. Work
    is done a block of draws at a time: a picture and its hole are filled once and serve ``reuse`` batches,
    each time varied anew, which commutes with the fill.

    Parameters
    ----------
    images, masks:
        uint8 ``N,H,W,3`` and ``M,H,W``; every picture of a batch gets a mask of its own. On a GPU, pictures
        that fit into half of its free memory move there as one tensor; else, and on a CPU, a block's
        pictures are read from the memory-mapped files, and no others.
    device, seed, batch_size:
        where batches are made, from which random numbers, and of how many pictures.
    fill:
        makes ``Batch.start`` of a blanked picture and its mask; ``None`` leaves it blank.
    paint:
        instead makes ``Batch.start`` of a picture and its mask, which then is not shown.
    reuse:
        batches that a filled picture serves.
    thorough:
        not only mirror pictures left to right, but also turn them, exchange their colours and make
        negatives, so that a handful of photographs teaches structure and not what it shows.
    """

    def __init__(
        self, images: Shards, masks: Bytes, device: torch.device, seed: int, batch_size: int,
        *, fill: Fill | None = None, paint: Painter | None = None, reuse: int = 1, thorough: bool = False,
    ) -> None:  # fmt: skip
        fits = device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2
        self._resident = torch.from_numpy(np.array(images)).to(device) if fits else None
        self._images = images
        self._masks = torch.from_numpy(masks[:, None]).to(device)
        self._seed, self._batch_size, self._fill, self._paint, self._reuse = seed, batch_size, fill, paint, reuse
        self._thorough = thorough
        self._block_size = max(1, _DRAWS_IN_BLOCK // (batch_size * reuse)) * reuse
        self._block: tuple[int, list[Batch]] | None = None

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self._masks.device

    def __getitem__(self, number: int) -> Batch:
        """Batch ``number``, counted from 0; cheap when asked for in order."""
        block, place = divmod(number, self._block_size)
        if self._block is None or self._block[0] != block:
            self._block = None  # before the next is made: two would be twice the memory
            self._block = (block, self._make(block))
        return self._block[1][place]

    def _make(self, block: int) -> list[Batch]:
        random = torch.Generator(self.device).manual_seed(self._seed * 1_000_003 + block)
        count = self._block_size * self._batch_size // self._reuse
        images = self._pictures(_rows(len(self._images), count, random)).permute(0, 3, 1, 2).float() / 255
        masks = self._masks[_rows(len(self._masks), count, random)].float()
        start = self._paint(images, masks, random) if self._paint else self._start(images * (1 - masks), masks)
        stacked = torch.cat([images, masks, start], dim=1)
        orders = [torch.randperm(count, generator=random, device=self.device) for _ in range(self._reuse)]
        return [self._vary(stacked[rows], random) for rows in torch.split(torch.cat(orders), self._batch_size)]

    def _pictures(self, rows: Tensor) -> Tensor:
        if self._resident is not None:
            return self._resident[rows]
        return torch.from_numpy(self._images.take(rows.cpu().numpy())).to(rows.device)

    def _start(self, blanked: Tensor, masks: Tensor) -> Tensor:
        if self._fill is None:
            return blanked
        at_once = len(blanked)
        if self.device.type == "cpu":
            at_once = max(1, _PIXELS_AT_ONCE // (masks.shape[2] * masks.shape[3]))
        pieces = zip(torch.split(blanked, at_once), torch.split(masks, at_once), strict=True)
        return torch.cat([self._fill(image, mask) for image, mask in pieces])

    def _vary(self, stacked: Tensor, random: torch.Generator) -> Batch:
        """Mirror each picture by a coin of its own; thoroughly, also turn it and exchange its colours."""
        for axis in (3, 2) if self._thorough else (3,):
            coins = torch.rand(len(stacked), 1, 1, 1, generator=random, device=self.device) < 0.5
            stacked = torch.where(coins, stacked.flip(axis), stacked)
        if self._thorough:
            half = len(stacked) // 2
            stacked = torch.cat([stacked[:half], stacked[half:].transpose(2, 3)])
        truth, mask, start = torch.split(stacked, [3, 1, 3], dim=1)
        if self._thorough:
            order = torch.randperm(3, generator=random, device=self.device)
            negative = (torch.rand((), generator=random, device=self.device) < 0.5).float()
            truth, start = (torch.lerp(x[:, order], 1 - x[:, order], negative) for x in (truth, start))
        shown = torch.zeros_like(mask) if self._paint else mask
        return Batch(truth.contiguous(), mask.contiguous(), start.contiguous(), shown.contiguous())


def _rows(length: int, count: int, random: torch.Generator) -> Tensor:
    return torch.randint(length, (count,), generator=random, device=random.device)
