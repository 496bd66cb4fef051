"""Several processes that train one model together, one per GPU, on one node or several, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_PATIENCE = timedelta(minutes=5)  # for a process that compiles while the others wait
_LETTERS = 256


@dataclass(frozen=True)
class World:
    """This process among those that train together; alone by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1  # on this machine

    @property
    def leads(self) -> bool:
        """Whether this is the process that logs and writes."""
        return self.rank == 0

    def share(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over all processes."""
        if self.size == 1:
            return module
        devices = [self.local_rank] if next(module.parameters()).is_cuda else None
        return DistributedDataParallel(module, devices, forward_sync_buffers=False, gradient_as_bucket_view=True)

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes something; all must ask alike. It goes over the host, not the GPUs."""
        if self.size == 1:
            return wish
        wishes = torch.tensor([int(wish)])
        dist.all_reduce(wishes, dist.ReduceOp.MAX)
        return bool(wishes.item())

    def tell(self, text: str) -> str:
        """What the first process says (at most 255 bytes of UTF-8), on every process; all must call alike."""
        if self.size == 1:
            return text
        content = text.encode() if self.leads else b""
        letters = torch.zeros(_LETTERS, dtype=torch.uint8)
        letters[: len(content)] = torch.tensor(list(content), dtype=torch.uint8)
        dist.broadcast(letters, 0)
        return bytes(letters[letters > 0].tolist()).decode()

    def wait(self) -> None:
        """Wait until all processes have come this far."""
        self.agree(False)


@contextmanager
def join_world() -> Iterator[World]:
    """The world that ``torchrun`` describes in the environment, left in order; alone without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield World()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield World(
            dist.get_rank(),
            dist.get_world_size(),
            *(int(os.environ[f"LOCAL_{name}"]) for name in ("RANK", "WORLD_SIZE")),
        )
    finally:
        dist.destroy_process_group()
