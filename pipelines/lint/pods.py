"""Rules about pods and images: what the cluster is told, and what it may do to them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipelines.lint.compiled import Compiled

_RESOURCES = ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def retries(compiled: Compiled) -> Iterator[str]:
    """Nodes go away, and images are slow to come."""
    for task in compiled.tasks:
        if task.executor and not task.looped and "backoffDuration" not in task.spec.get("retryPolicy", {}):
            yield f"{task.name} is not tried again when its node goes away; set_retry(...) with a backoff_duration"


def timeouts(compiled: Compiled) -> Iterator[str]:
    """A pod that hangs holds its GPU forever."""
    for task in compiled.tasks:
        if task.executor and not compiled.pods.get(task.executor, {}).get("activeDeadlineSeconds"):
            yield f"{task.name} may hang forever; kubernetes.set_timeout(task, seconds)"


def requests_and_limits(compiled: Compiled) -> Iterator[str]:
    """Without them a pod is the first to be evicted, or takes its neighbours with it."""
    for task in compiled.tasks:
        resources = compiled.container(task).get("resources", {})
        missing = [name for name in _RESOURCES if not resources.get(f"resource{name}")]
        if task.executor and missing:
            names = " and ".join(re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower() for name in missing)
            yield f"{task.name} has no {names}; set_cpu_request, set_cpu_limit, set_memory_request, set_memory_limit"


def not_root(compiled: Compiled) -> Iterator[str]:
    """A namespace at Pod Security restricted refuses it."""
    for task in compiled.tasks:
        context = compiled.pods.get(task.executor, {}).get("securityContext", {})
        if task.executor and not (context.get("runAsNonRoot") and int(context.get("runAsUser", 0))):
            yield f"{task.name} may run as root; set_security_context(task, run_as_user=1000, run_as_non_root=True)"


def pods_have_labels(compiled: Compiled) -> Iterator[str]:
    """Network policies and dashboards find pods by them."""
    for task in compiled.tasks:
        if task.executor and not compiled.pods.get(task.executor, {}).get("podMetadata", {}).get("labels"):
            yield f"the pods of {task.name} have no label; kubernetes.add_pod_label(task, key, value)"


def deadline(compiled: Compiled) -> Iterator[str]:
    """Of the whole run; servers before 2.17, for which there are no literals, do not know one."""
    modern = any("literals" in field for field in compiled.fields.values())
    for name, called in (("activeDeadlineSeconds", "active_deadline_seconds"),
                         ("resourceTtlOnCompletion", "ttl_seconds_after_finished")):  # fmt: skip
        if modern and not compiled.limits.get(name):
            yield f"the pipeline has no {called}; @dsl.pipeline(pipeline_config=dsl.PipelineConfig({called}=...))"


def images_have_tags(compiled: Compiled) -> Iterator[str]:
    """``latest`` is another image tomorrow."""
    for image in _images(compiled):
        name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
        if "@" not in image and tag in ("", "latest"):
            yield f"the image {image} changes without notice; name a version of {name}, better a digest"


def images_by_digest(compiled: Compiled) -> Iterator[str]:
    """A tag can be moved, and caches do not see it."""
    for image in _images(compiled):
        if not _DIGEST.search(image):
            yield f"the image {image} has no digest and may change unseen; name it as name@sha256:... or --allow-tags"


def _images(compiled: Compiled) -> list[str]:
    """All images: of containers, and the constants from which one is chosen at run time."""
    fixed = {str(container["image"]) for container in compiled.containers.values()}
    chosen = {
        str(source["runtimeValue"]["constant"])
        for task in compiled.tasks
        for name, source in task.inputs.items()
        if name.endswith("_image") and "constant" in source.get("runtimeValue", {})
    }
    return sorted(image for image in fixed | chosen if not image.startswith("{{"))
