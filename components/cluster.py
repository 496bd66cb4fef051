"""The Kubernetes cluster around a pod, where there is one: its API, and the volume that pods of a run share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_VOLUME_SIZE = "20Gi"
_PATIENCE = 10  # seconds for the API to answer
_EXISTS, _FORBIDDEN = 409, 403


class ClusterError(ValueError):
    """The cluster does not let this pod do what it must; the message says what to do."""


def in_cluster() -> bool:
    """Whether this process runs in a pod that may ask the cluster's API."""
    return (_ACCOUNT / "token").exists()


def namespace() -> str:
    """The namespace of this pod."""
    return (_ACCOUNT / "namespace").read_text().strip()


def token() -> str:
    """The token of this pod's service account; ``""`` outside of a cluster."""
    return (_ACCOUNT / "token").read_text().strip() if in_cluster() else ""


def require_cluster(num_nodes: int) -> None:
    """Raise ``ClusterError`` where there is no cluster whose nodes could train."""
    if not in_cluster():
        raise ClusterError(
            f"train_num_nodes = {num_nodes} trains on nodes of a Kubernetes cluster, and this is one machine: leave it "
            "at 1, and give the number of cards as train_num_processes"
        )


def ensure_volume(name: str, num_nodes: int = 1) -> str:
    """Make a volume claim where it is missing; returns a sentence about it, ``""`` outside of a cluster.

    Raises ``ClusterError`` where it is missing and this pod may not make it, and where ``num_nodes`` nodes are to
    train and there is no cluster, or no claim that all of them can write to.
    """
    if num_nodes > 1:
        require_cluster(num_nodes)
    if not in_cluster():
        return ""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    modes: list[str] | None = None
    try:
        claim = _core().read_namespaced_persistent_volume_claim(name, namespace(), _request_timeout=_PATIENCE)
        modes = claim.spec.access_modes
    except ApiException as error:
        if error.status == _FORBIDDEN:  # it may be there all the same; a pod that mounts it will tell
            return f"State goes to the volume claim {name}, which this pod may not look at."
        if error.status != 404:
            raise ClusterError(
                f"the cluster's API does not tell whether volume claim {name} is there: {error}"
            ) from None
    except HTTPError as error:
        raise ClusterError(f"the cluster's API does not answer ({error}); the run can be tried again") from None
    if num_nodes > 1 and "ReadWriteMany" not in (modes or []):
        raise ClusterError(
            f"train_num_nodes = {num_nodes} needs a volume that all nodes write to, and the claim {name} is "
            f"{' '.join(modes) if modes else 'missing'}: make one that is ReadWriteMany (docs/operations.md, Several "
            "nodes) and name it as run_volume"
        )
    return _make_volume(name) if modes is None else f"State goes to the volume claim {name}."


def _make_volume(name: str) -> str:
    from kubernetes.client.exceptions import ApiException

    claim = {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "kintsugi"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": _VOLUME_SIZE}}},
    }
    try:
        _core().create_namespaced_persistent_volume_claim(namespace(), claim, _request_timeout=_PATIENCE)
    except ApiException as error:
        if error.status != _EXISTS:
            raise ClusterError(
                f"there is no volume claim {name!r} in namespace {namespace()}, and this pod may not make it "
                f"({error.reason}); make it (docs/kubeflow.md has the manifest), or name another as run_volume"
            ) from None
    return f"State goes to the volume claim {name}, made now with {_VOLUME_SIZE}."


def _core() -> Any:
    from kubernetes import client

    return client.CoreV1Api(api_client())


def api_client() -> Any:
    """A client of the cluster's API, as the pod's service account."""
    from kubernetes import client
    from kubernetes.config.incluster_config import InClusterConfigLoader

    configuration = client.Configuration()
    InClusterConfigLoader(str(_ACCOUNT / "token"), str(_ACCOUNT / "ca.crt")).load_and_set(configuration)
    configuration.retries = False
    return client.ApiClient(configuration)
