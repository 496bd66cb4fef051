"""Who reaches whom under a set of Kubernetes NetworkPolicies, as their reference says.

A pod is isolated in a direction as soon as one policy that selects it names the direction; then it may do what at
least one such policy allows. A connection needs both ends.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

Policy = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or with ``address`` a machine outside of the cluster."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    address: str = ""
    namespace_labels: dict[str, str] = field(default_factory=dict)


def reaches(policies: list[Policy], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is allowed by the policies at both of its ends."""
    leaving = _allowed(policies, "Egress", source, target, port, protocol)
    return leaving and _allowed(policies, "Ingress", target, source, port, protocol)


def _allowed(policies: list[Policy], direction: str, here: Peer, there: Peer, port: int, protocol: str) -> bool:
    if here.address:
        return True
    binding = [p["spec"] for p in policies if _selects_pod(p, here) and direction in p["spec"]["policyTypes"]]
    rules = [rule for spec in binding for rule in spec.get(direction.lower(), [])]
    return not binding or any(_permits(rule, direction, here, there, port, protocol) for rule in rules)


def _selects_pod(policy: Policy, pod: Peer) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and _matches(policy["spec"]["podSelector"], pod.labels)


def _permits(rule: dict[str, Any], direction: str, here: Peer, there: Peer, port: int, protocol: str) -> bool:
    peers = rule.get("from" if direction == "Ingress" else "to")
    ports = rule.get("ports")
    right_port = not ports or any(p.get("protocol", "TCP") == protocol and p.get("port", port) == port for p in ports)
    return right_port and (not peers or any(_is_peer(peer, here, there) for peer in peers))


def _is_peer(peer: dict[str, Any], here: Peer, there: Peer) -> bool:
    if block := peer.get("ipBlock"):
        address = ipaddress.ip_address(there.address) if there.address else None
        return address is not None and address in ipaddress.ip_network(block["cidr"])
    if there.address:
        return False
    names = there.namespace_labels | {"kubernetes.io/metadata.name": there.namespace}
    if "namespaceSelector" in peer:
        in_namespace = _matches(peer["namespaceSelector"], names)
    else:
        in_namespace = there.namespace == here.namespace
    return in_namespace and _matches(peer.get("podSelector", {}), there.labels)


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "only matchLabels is evaluated here"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
