"""The GPU profiles: to which nodes a cluster sends a training. One table for pipeline, documents, infrastructure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LABEL = "cloud.google.com/gke-accelerator"
SPOT = "cloud.google.com/gke-spot"
TAINT = RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True)
class Pool:
    """Nodes with one kind of card: what ``LABEL`` says on them, and what to know about them."""

    accelerator: str
    capability: str
    memory_gb: int
    note: str = ""


POOLS = {
    "p100": Pool("nvidia-tesla-p100", "sm_60", 16, "own machines, other clouds; Compute Engine ended it on 2026-09-15"),
    "l4": Pool("nvidia-l4", "sm_89", 24, "what Compute Engine advises in place of a P100"),
    "t4": Pool("nvidia-tesla-t4", "sm_75", 16, "Compute Engine ends it on 2027-08-01"),
    "v100": Pool("nvidia-tesla-v100", "sm_70", 16),
    "a100": Pool("nvidia-tesla-a100", "sm_80", 40),
    "h100": Pool("nvidia-h100-80gb", "sm_90", 80),
}  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """What Kubernetes is to be told about a pod that trains: labels its node must have, taints it may have, cards."""

    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    accelerator_limit: str = "0"


def place(gpu: str, num_cards: int, *, spot: bool) -> Placement:
    """Where to train with so many cards of a profile; ``"none"``: on any node, without a card."""
    spots = [{"key": SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"}] if spot else []
    if gpu == "none":
        return Placement(tolerations=spots)
    card: dict[str, Any] = {"key": TAINT, "operator": "Exists", "effect": "NoSchedule"}
    return Placement({LABEL: POOLS[gpu].accelerator}, [card, *spots], str(num_cards))
