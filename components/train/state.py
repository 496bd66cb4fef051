"""The complete state of a training as named tensors and JSON: what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

History = list[dict[str, float]]


@dataclass(frozen=True)
class TrainingState:
    """Everything that the rest of a training depends on.

    Random numbers and the position in the data are functions of the seed and ``num_steps``, so they need no
    entry of their own (see ``Batches`` and ``AdversarialLoop``).
    """

    num_steps: int
    tensors: dict[str, Tensor]  # "generator/<weight>", "g_optimizer/<parameter>/<moment>", ..., on the host
    history: History
    facts: dict[str, Any]  # JSON: rate scale, loss scaler, how it computes

    @property
    def is_finite(self) -> bool:
        """Whether every tensor holds finite numbers only."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors.values())

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix/``, by the rest of their names."""
        return {name.removeprefix(f"{prefix}/"): t for name, t in self.tensors.items() if name.startswith(f"{prefix}/")}


def flatten_optimizer(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments as named tensors; before its first step it has none."""
    moments = optimizer.state_dict()["state"]
    return {f"{name}/{number}/{key}": value for number, kept in moments.items() for key, value in kept.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what ``flatten_optimizer`` took, under the names without the optimiser's own.

    Moments are laid out in memory as their parameters are: fused optimisers walk both side by side.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split("/")
        like = parameters[int(number)]
        laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        moments.setdefault(int(number), {})[key] = laid_out
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
