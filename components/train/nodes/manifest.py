"""The TrainJob of a training over several nodes, as Kubeflow Trainer's v1alpha1 API takes it (2.2 and later).

The pod that starts it has everything that our pods get (image, settings, volumes, user, limits; see
``pipelines/pods.py``), so the nodes' pods are made after it; what it lacks is the cards, which come from the profile.
"""

from __future__ import annotations

from typing import Any

from components.config import RunConfig, TrainConfig
from components.pools import RESOURCE, place

API, KIND = "trainer.kubeflow.org/v1alpha1", "TrainJob"
CONTAINER = JOB = "node"  # what the runtime calls them
_RUNTIME = "torch-distributed"
_MANAGER = "kintsugi/train"
_MAIN = "main"  # the container with the step's code, as Argo calls it
_OURS = ("KINTSUGI_", "MLFLOW_")
_LABELS = ("app.kubernetes.io/", "pipeline/runid")

Json = dict[str, Any]


def train_job(name: str, command: list[str], config: TrainConfig, run: RunConfig, pod: Json) -> Json:
    """The manifest of a TrainJob that runs ``command`` on every node; ``pod`` is the pod of this step."""
    main = _main_container(pod)
    placement = place(run.gpu, config.num_processes, spot=run.spot)
    labels = _labels(pod)
    trainer = {
        "image": main["image"],
        "command": command,
        "env": [variable for variable in main.get("env", []) if _is_ours(variable)],
        "numNodes": config.num_nodes,
        "numProcPerNode": config.num_processes,
        "resourcesPerNode": _with_cards(main.get("resources", {}), placement.accelerator_limit),
    }
    template = {
        "metadata": {"labels": labels},
        "spec": _pod_spec(pod["spec"], main, placement.node_selector, placement.tolerations),
    }
    job = {"name": JOB, "template": {"spec": {"template": template}}}
    patch = {"manager": _MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}
    spec = {"runtimeRef": {"name": _RUNTIME}, "trainer": trainer, "runtimePatches": [patch]}
    if seconds := pod["spec"].get("activeDeadlineSeconds"):
        spec["activeDeadlineSeconds"] = seconds
    metadata = {"name": name, "labels": labels, "ownerReferences": [_owner(pod)]}
    return {"apiVersion": API, "kind": KIND, "metadata": metadata, "spec": spec}


def _main_container(pod: Json) -> Json:
    containers: list[Json] = pod["spec"]["containers"]
    return next((container for container in containers if container["name"] == _MAIN), containers[0])


def _is_ours(variable: Json) -> bool:
    """Whether a variable is a setting of ours, rather than a fact about the pod."""
    source = variable.get("valueFrom", {})
    return "configMapKeyRef" in source or "secretKeyRef" in source or variable["name"].startswith(_OURS)


def _with_cards(resources: Json, limit: str) -> Json:
    cards = {RESOURCE: limit} if limit != "0" else {}
    return {
        bound: {key: value for key, value in resources.get(bound, {}).items() if key != RESOURCE} | cards
        for bound in ("requests", "limits")
    }


def _pod_spec(spec: Json, main: Json, node_selector: Json, tolerations: list[Json]) -> Json:
    """What the nodes' pods have beside the trainer's container, without what is empty."""
    volumes = [volume for volume in spec.get("volumes", []) if _is_shared(volume)]
    names = {volume["name"] for volume in volumes}
    container = {
        "name": CONTAINER,
        "volumeMounts": [mount for mount in main.get("volumeMounts", []) if mount["name"] in names],
        "securityContext": main.get("securityContext"),
    }
    patched = {
        "containers": [{key: value for key, value in container.items() if value}],
        "volumes": volumes,
        "nodeSelector": node_selector,
        "tolerations": tolerations,
        "securityContext": spec.get("securityContext"),
        "serviceAccountName": spec.get("serviceAccountName"),
        "imagePullSecrets": spec.get("imagePullSecrets"),
    }
    return {key: value for key, value in patched.items() if value}


def _is_shared(volume: Json) -> bool:
    """Whether a volume is the state's, or memory that processes share; Argo's and Kubeflow's own are neither."""
    return "persistentVolumeClaim" in volume or volume.get("emptyDir", {}).get("medium") == "Memory"


def _labels(pod: Json) -> dict[str, str]:
    found: dict[str, str] = pod["metadata"].get("labels", {})
    return {key: value for key, value in found.items() if key.startswith(_LABELS)}


def _owner(pod: Json) -> Json:
    """With whom the job goes: the run's workflow, which outlives a pod that is tried again; else the pod."""
    metadata = pod["metadata"]
    for owner in metadata.get("ownerReferences", []):
        if owner.get("controller"):
            return {key: owner[key] for key in ("apiVersion", "kind", "name", "uid")}
    return {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
