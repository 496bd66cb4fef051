"""What every step's pod gets: cpu and memory, a deadline, retries, a user that is not root, state and settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MOUNT = "/kintsugi"
SETTINGS = "kintsugi"  # a ConfigMap and a Secret of this name, both optional
_USER = 1000
_PUBLIC = (
    "MLFLOW_TRACKING_URI",
    "KINTSUGI_KUBEFLOW_URL",
    "KINTSUGI_KUBEFLOW_API",
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
)
_SECRET = (
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "KINTSUGI_WEBHOOK",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
)  # fmt: skip
_SHM = "8Gi"


@dataclass(frozen=True)
class Needs:
    """What a step asks for and may take at most. Requests are small, so that one small node can run them all."""

    cpu: tuple[str, str]
    memory: tuple[str, str]
    hours: float
    retries: int = 2


NEEDS = {
    "plan": Needs(("100m", "1"), ("256Mi", "1Gi"), 0.25, retries=1),
    "ingest": Needs(("500m", "8"), ("512Mi", "8Gi"), 12, retries=0),  # it is in a loop, where Kubeflow ignores retries
    "prepare": Needs(("500m", "8"), ("512Mi", "8Gi"), 6),
    "train": Needs(("1", "16"), ("2Gi", "48Gi"), 48, retries=5),  # spot nodes come and go; it goes on from a checkpoint
    "evaluate": Needs(("1", "8"), ("2Gi", "16Gi"), 6),
    "gate": Needs(("250m", "2"), ("512Mi", "4Gi"), 0.5),
    "register": Needs(("250m", "2"), ("512Mi", "4Gi"), 0.5),
    "package": Needs(("500m", "4"), ("1Gi", "8Gi"), 1),
    "verify": Needs(("500m", "4"), ("1Gi", "8Gi"), 1),
    "promote": Needs(("250m", "2"), ("512Mi", "4Gi"), 0.5),
    "notify": Needs(("100m", "1"), ("256Mi", "1Gi"), 0.25, retries=1),
}


def furnish(task: Any, volume: Any = None) -> Any:
    """Give a task its pod; ``volume``, a parameter, names the volume claim with the state. Returns the task.

    kfp.local knows none of this but the environment, and the volume is not there then.
    """
    from kfp import kubernetes

    needs = NEEDS[task.name]
    task.set_cpu_request(needs.cpu[0]).set_cpu_limit(needs.cpu[1])
    task.set_memory_request(needs.memory[0]).set_memory_limit(needs.memory[1])
    if needs.retries:
        task.set_retry(
            num_retries=needs.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="10m"
        )
    kubernetes.set_timeout(task, int(needs.hours * 3600))
    kubernetes.set_security_context(task, run_as_user=_USER, run_as_group=_USER, run_as_non_root=True)
    for key, value in (("name", "kintsugi"), ("component", task.name), ("part-of", "kintsugi")):
        kubernetes.add_pod_label(task, f"app.kubernetes.io/{key}", value)
    kubernetes.use_config_map_as_env(task, SETTINGS, {name: name for name in _PUBLIC}, optional=True)
    kubernetes.use_secret_as_env(task, SETTINGS, {name: name for name in _SECRET}, optional=True)
    if volume is not None:
        kubernetes.mount_pvc(task, volume, MOUNT)
        task.set_env_variable("KINTSUGI_VOLUME", MOUNT)
    return task


def send_to_gpus(task: Any, planned: Any) -> None:
    """Send a task to the nodes that ``plan`` chose at run time, in its image, with memory for processes to share."""
    from kfp import kubernetes

    limit = planned["accelerator_limit"]
    task.register_pipeline_channels([limit])  # kfp forgets it on the way into an exit handler
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(limit)
    task.set_container_image(planned["image"])
    kubernetes.add_node_selector_json(task, planned["node_selector"])
    kubernetes.add_toleration_json(task, planned["tolerations"])
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=_SHM)
