"""The API of a cluster on loopback: the paths, statuses and answers that a step meets in a pod, over TLS.

TrainJobs are taken only as Kubeflow Trainer's own models have them: an unknown field is refused, as the server does.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubeflow_trainer_api import models
from pydantic import ValidationError

from tests.loopback import serve_http

Json = dict[str, Any]
_CORE, _TRAINER = "/api/v1/namespaces/team/", "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/"


def strictly(manifest: Json) -> Json:
    """A TrainJob as the models of its CRD have it; raises ``ValidationError`` or ``ValueError`` where it is none."""
    read = models.TrainerV1alpha1TrainJob.from_dict(manifest)
    assert read is not None
    taken: Json = read.to_dict()
    if taken != manifest:  # the models pass over what they do not know
        raise ValueError(f"the TrainJob has fields that its CRD has not: {manifest} is taken as {taken}")
    return taken


@dataclass
class Cluster:
    """The objects of the namespace ``team`` by resource and name, and how the server behaves."""

    objects: dict[str, dict[str, Json]] = field(
        default_factory=lambda: {"persistentvolumeclaims": {}, "pods": {}, "trainjobs": {}}
    )
    logs: dict[str, list[str]] = field(default_factory=dict)  # by pod
    refusals: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)  # by verb and resource
    asked: list[tuple[str, str]] = field(default_factory=list)  # verbs and resources
    tokens: set[str] = field(default_factory=set)
    made: Callable[[Json], None] = lambda _: None
    deleted: Callable[[Json], None] = lambda _: None
    breaks: list[int] = field(default_factory=list)  # after how many lines the next connection to a log breaks

    @property
    def claims(self) -> dict[str, Json]:
        return self.objects["persistentvolumeclaims"]

    @property
    def jobs(self) -> dict[str, Json]:
        return self.objects["trainjobs"]

    @property
    def pods(self) -> dict[str, Json]:
        return self.objects["pods"]

    def print(self, pod: str, line: str) -> None:
        """A line of a pod's log, with its time as the kubelet writes it."""
        nanoseconds = time.time_ns()
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanoseconds // 10**9))
        self.logs.setdefault(pod, []).append(f"{moment}.{nanoseconds % 10**9:09d}Z {line}")

    def end(self, name: str, how: str, reason: str = "", message: str = "") -> None:
        """Let a TrainJob end, and its pods with it."""
        for pod in self.pods_of(name):
            pod["status"] = {"phase": "Succeeded", "containerStatuses": [{"name": "node", "state": {"terminated": {}}}]}
        self.jobs[name]["status"] = {
            "conditions": [{"type": how, "status": "True", "reason": reason, "message": message}]
        }

    def pods_of(self, name: str) -> list[Json]:
        return [
            pod for pod in self.pods.values()
            if pod["metadata"].get("labels", {}).get("jobset.sigs.k8s.io/jobset-name") == name
        ]  # fmt: skip

    def add_node(self, name: str, rank: int, **status: Any) -> str:
        """The pod of a node of a TrainJob, running unless ``status`` says otherwise."""
        pod = f"{name}-node-0-{rank}-abcde"
        labels = {
            "jobset.sigs.k8s.io/jobset-name": name, "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": str(rank),
        }  # fmt: skip
        running = {"phase": "Running", "containerStatuses": [{"name": "node", "state": {"running": {}}}]}
        self.pods[pod] = {"metadata": {"name": pod, "labels": labels}, "status": status or running}
        return pod


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """Answers from ``cluster``."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # else headers and body go apart, and wait for each other's acknowledgement
    cluster: Cluster

    def do_GET(self) -> None:
        resource, name, part = self._target()
        if part == "log":
            self._answer("get", "pods/log", lambda: self._send_log(name))
        elif name:
            self._answer("get", resource, lambda: self._send(200, self._find(resource, name)))
        else:
            self._answer("list", resource, lambda: self._send(200, {"items": self._choose(resource)}))

    def do_POST(self) -> None:
        resource, _, _ = self._target()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer("create", resource, lambda: self._create(resource, body))

    def do_DELETE(self) -> None:
        resource, name, _ = self._target()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer("delete", resource, lambda: self._delete(resource, name))

    def _target(self) -> tuple[str, str, str]:
        path = urlsplit(self.path).path
        found = re.fullmatch(f"(?:{_CORE}|{_TRAINER})([a-z]+)(?:/([a-z0-9.-]+))?(?:/(log))?", path)
        assert found, path
        assert (found[1] == "trainjobs") == path.startswith(_TRAINER)
        return found[1], found[2] or "", found[3] or ""

    def _answer(self, verb: str, resource: str, act: Callable[[], None]) -> None:
        self.cluster.asked.append((verb, resource))
        self.cluster.tokens.add(self.headers["Authorization"])
        try:
            if refusal := self.cluster.refusals.get((verb, resource)):
                raise Refused(*refusal)
            act()
        except Refused as refused:
            self._send(refused.status, {"kind": "Status", "message": str(refused), "code": refused.status})

    def _find(self, resource: str, name: str) -> Json:
        if name not in self.cluster.objects[resource]:
            raise Refused(404, f'{resource} "{name}" not found')
        return self.cluster.objects[resource][name]

    def _choose(self, resource: str) -> list[Json]:
        wanted = parse_qs(urlsplit(self.path).query).get("labelSelector", [""])[0]
        labels = dict(part.split("=") for part in wanted.split(",") if part)
        objects = self.cluster.objects[resource].values()
        return [found for found in list(objects) if labels.items() <= found["metadata"].get("labels", {}).items()]

    def _create(self, resource: str, body: Json) -> None:
        name = body["metadata"]["name"]
        if name in self.cluster.objects[resource]:
            raise Refused(409, f'{resource} "{name}" already exists')
        if resource == "trainjobs":
            try:
                strictly(body)
            except (ValidationError, ValueError) as error:
                raise Refused(422, str(error)) from None
        self.cluster.objects[resource][name] = body
        self._send(201, body)
        if resource == "trainjobs":
            self.cluster.made(body)

    def _delete(self, resource: str, name: str) -> None:
        found = self._find(resource, name)
        assert "propagationPolicy=Foreground" in self.path
        found["metadata"]["deletionTimestamp"] = "2026-11-26T10:00:00Z"
        self._send(200, found)
        self.cluster.deleted(found)
        for pod in self.cluster.pods_of(name):
            self.cluster.pods.pop(pod["metadata"]["name"])
        self.cluster.objects[resource].pop(name)

    def _send_log(self, name: str) -> None:
        """Every line so far, and whatever comes until the pod's container has ended."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        while True:
            ended = "terminated" in str(self.cluster.pods.get(name, "terminated"))
            lines = self.cluster.logs.get(name, [])
            for line in lines[sent:]:
                self.wfile.write(f"{len(line.encode()) + 1:x}\r\n{line}\n\r\n".encode())
                self.wfile.flush()
                sent += 1
                if self.cluster.breaks and sent == self.cluster.breaks[0]:
                    self.cluster.breaks.pop(0)
                    self.wfile.write(b"20\r\nhalf a li")
                    self.close_connection = True
                    return
            if ended and sent == len(self.cluster.logs.get(name, [])):
                self.wfile.write(b"0\r\n\r\n")
                return
            time.sleep(0.01)

    def _send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def make_account(folder: Path) -> None:
    """What a pod finds of its service account, with a certificate of the server's."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key", "-days", "2",
         "-out", folder / "ca.crt", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "token").write_text("secret")
    (folder / "namespace").write_text("team")


@contextmanager
def serve(cluster: Cluster, account: Path) -> Iterator[int]:
    """Serve the API; yields its port."""
    handler = type("Bound", (Handler,), {"cluster": cluster})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(account / "ca.crt", account / "key")
    with serve_http(handler, context) as host:
        yield int(host.partition(":")[2])
