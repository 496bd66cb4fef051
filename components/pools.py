"""The GPU profiles: to which nodes a cluster sends a training. One table for pipeline, documents, infrastructure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
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


_TABLE: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("gpu_profiles.json").read_text())
POOLS = {
    name: Pool(row["accelerator"], row["capability"], row["memory_gb"], row["note"]) for name, row in _TABLE.items()
}
"""By profile; Terraform reads the same file."""


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
