"""TrainJobs and their pods at the cluster's API, as plain JSON; whatever it refuses becomes one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from components.cluster import ClusterError, api_client, namespace
from components.train.nodes.manifest import API, CONTAINER, JOB, Json

_RESOURCE = dict(zip(("group", "version"), API.split("/"), strict=True), plural="trainjobs")
_PATIENCE = (5, 30)  # seconds to connect, and to wait for an answer
_QUIET = 60  # seconds without a line, after which to look whether the job is still there
_RAW = {"_preload_content": False}  # as sent: the client's own models refuse what a newer cluster leaves out
_GUIDE = "docs/operations.md, Several nodes"


class NoAnswer(ClusterError):
    """The API cannot be reached, or is busy; it may answer later."""


class LogBroke(Exception):
    """A log stopped before its container did, or said nothing for a minute."""


class TrainJobs:
    """The TrainJobs of this pod's namespace; methods raise ``ClusterError``, and ``NoAnswer`` where trying helps."""

    def __init__(self) -> None:
        from kubernetes import client

        api = api_client()
        self._jobs, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self._place = {**_RESOURCE, "namespace": namespace()}

    def own_pod(self) -> Json:
        """The pod that this process runs in."""
        with _asking("get", "pods"):
            name = os.environ.get("KFP_POD_NAME") or socket.gethostname()
            return _json(self._core.read_namespaced_pod(name, namespace(), **_RAW, _request_timeout=_PATIENCE))

    def get(self, name: str) -> Json | None:
        """A TrainJob; ``None`` where there is none."""
        with _asking("get", "trainjobs"), _unless(404):
            job: Json = self._jobs.get_namespaced_custom_object(**self._place, name=name, _request_timeout=_PATIENCE)
            return job
        return None

    def create(self, manifest: Json) -> bool:
        """Make a TrainJob; ``False`` where there is one of that name."""
        with _asking("create", "trainjobs"), _unless(409):
            self._jobs.create_namespaced_custom_object(**self._place, body=manifest, _request_timeout=_PATIENCE)
            return True
        return False

    def delete(self, name: str) -> None:
        """Delete a TrainJob once its pods have ended, who are asked to; nothing where there is none."""
        options = {"propagation_policy": "Foreground", "_request_timeout": _PATIENCE}
        with _asking("delete", "trainjobs"), _unless(404):
            self._jobs.delete_namespaced_custom_object(**self._place, name=name, **options)

    def pods(self, name: str) -> list[Json]:
        """The pods of a TrainJob's nodes, in the order of their ranks."""
        chosen = f"jobset.sigs.k8s.io/jobset-name={name},jobset.sigs.k8s.io/replicatedjob-name={JOB}"
        with _asking("list", "pods"):
            found = self._core.list_namespaced_pod(
                namespace(), label_selector=chosen, **_RAW, _request_timeout=_PATIENCE
            )
            return sorted(_json(found)["items"], key=_rank)

    def log(self, pod: str, since: int | None) -> Iterator[tuple[str, str]]:
        """Time and text of each line that a pod's container prints, of the last ``since`` seconds and from now on.

        Ends with the container, and where there is no log just now. Raises ``LogBroke``.
        """
        from urllib3.exceptions import ProtocolError, ReadTimeoutError

        wanted: Json = {"container": CONTAINER, "follow": True, "timestamps": True}
        wanted |= {"since_seconds": since} if since else {}
        with _asking("get", "pods/log"), _unless(400, 404):
            response = self._core.read_namespaced_pod_log(
                pod, namespace(), **wanted, **_RAW, _request_timeout=(_PATIENCE[0], _QUIET)
            )
            with contextlib.closing(response):
                try:
                    for line in _lines(response):
                        time, _, text = line.decode(errors="replace").partition(" ")
                        yield time, text
                except (ProtocolError, ReadTimeoutError) as error:
                    raise LogBroke(str(error)) from None


def _json(response: Any) -> Json:
    content: Json = json.loads(response.data)
    return content


def _rank(pod: Json) -> int:
    return int(pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-completion-index", 0))


def _lines(response: Any) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(None, decode_content=False):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


@contextlib.contextmanager
def _unless(*statuses: int) -> Iterator[None]:
    """Pass over answers of these statuses from a server that knows what is asked for."""
    from kubernetes.client.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        if error.status not in statuses:
            raise


@contextlib.contextmanager
def _asking(verb: str, resource: str) -> Iterator[None]:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise _refusal(error, verb, resource) from None
    except HTTPError as error:
        raise NoAnswer(f"the cluster's API does not answer ({error}); the run can be tried again") from None


def _refusal(error: Any, verb: str, resource: str) -> ClusterError:
    status, message = error.status, _message(error)
    if status == 404 and resource == "trainjobs":
        return ClusterError(
            f"this cluster knows no TrainJobs: install Kubeflow Trainer ({_GUIDE}), or leave train_num_nodes at 1"
        )
    if status == 401 or (status == 403 and "cannot" in message):
        return ClusterError(
            f"the steps' service account may not {verb} {resource} in namespace {namespace()}: give it the role "
            f"kintsugi-steps, infra/kustomize/base/pipeline/role.yaml ({_GUIDE}). The cluster says: {message}"
        )
    if status == 429 or status >= 500:
        return NoAnswer(f"the cluster's API is not well ({status}: {message}); the run can be tried again")
    return ClusterError(f"the cluster refuses to {verb} {resource} ({_GUIDE}): {message}")


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
