"""TrainJobs for tests: the step's pod that they are made after, and nodes that run them as processes."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time

from components.bentos import free_port
from components.config import PipelineConfig
from components.inpainting.inpainter import usable_cores
from components.train.nodes.manifest import train_job
from tests.cluster_api import Cluster, Json

CLAIM, VOLUME = "shared", "/kintsugi"
NAME = "kintsugi-0123456789abcdef-1"


def step_pod(volume: str = VOLUME) -> Json:
    """A pod of the train step, as Kubeflow Pipelines makes it from what ``pipelines/pods.py`` asks for."""
    uri = {"configMapKeyRef": {"name": "kintsugi", "key": "MLFLOW_TRACKING_URI", "optional": True}}
    key = {"secretKeyRef": {"name": "kintsugi", "key": "AWS_SECRET_ACCESS_KEY", "optional": True}}
    main = {
        "name": "main",
        "image": "registry.example/kintsugi/gpu@sha256:1234",
        "env": [
            {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "ARGO_NODE_ID", "value": "training-7"},
            {"name": "KINTSUGI_VOLUME", "value": volume},
            {"name": "MLFLOW_TRACKING_URI", "valueFrom": uri},
            {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": key},
        ],
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "16", "nvidia.com/gpu": "0"}},
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True},
        "volumeMounts": [
            {"name": "kfp-launcher", "mountPath": "/kfp-launcher"},
            {"name": "kintsugi", "mountPath": VOLUME},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    return {
        "metadata": {
            "name": socket.gethostname(),
            "uid": "5",
            "labels": {
                "app.kubernetes.io/component": "train",
                "pipeline/runid": "run-1",
                "workflows.argoproj.io/x": "y",
            },
            "ownerReferences": [
                {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w", "uid": "9", "controller": True}
            ],
        },
        "spec": {
            "activeDeadlineSeconds": 172800,
            "serviceAccountName": "pipeline-runner",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "wait", "image": "argoexec"}, main],
            "volumes": [
                {"name": "kfp-launcher", "emptyDir": {}},
                {"name": "kintsugi", "persistentVolumeClaim": {"claimName": CLAIM}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
            ],
        },
    }


def config(**changes: object) -> PipelineConfig:
    return PipelineConfig.from_flat({"train_num_nodes": 2, "run_gpu": "l4", "run_volume": CLAIM, **changes})


def manifest(**changes: object) -> Json:
    chosen = config(**changes)
    return train_job(NAME, ["torchrun", "order.json"], chosen.train, chosen.run, step_pod())


class Nodes:
    """Kubeflow Trainer and its nodes on this machine: every pod is a process that runs the manifest's command."""

    def __init__(self, cluster: Cluster, environment: dict[str, str]) -> None:
        self.cluster, self.environment = cluster, environment
        self.processes: list[subprocess.Popen[str]] = []

    def made(self, job: Json) -> None:
        trainer, name = job["spec"]["trainer"], job["metadata"]["name"]
        given = {variable["name"]: variable["value"] for variable in trainer["env"] if "value" in variable}
        world = {
            "PET_NNODES": trainer["numNodes"], "PET_NPROC_PER_NODE": trainer["numProcPerNode"],
            "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": free_port(),
        }  # fmt: skip
        cores, count = sorted(os.sched_getaffinity(0)), trainer["numNodes"]
        size = max(1, usable_cores() // count)  # as many threads a process as on one node
        shares = [cores[rank * size :][:size] or cores[:size] for rank in range(count)]
        self.processes = []
        for rank in range(count):
            variables = {key: str(value) for key, value in {**given, **world, "PET_NODE_RANK": rank}.items()}
            process = subprocess.Popen(
                trainer["command"], env=self.environment | variables, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            os.sched_setaffinity(process.pid, shares[rank])
            self.processes.append(process)
            threading.Thread(target=self._print, args=(self.cluster.add_node(name, rank), process), daemon=True).start()
        threading.Thread(target=self._watch, args=(name,), daemon=True).start()

    def deleted(self, _: Json) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()

    def _print(self, pod: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            self.cluster.print(pod, line.rstrip("\n"))

    def _watch(self, name: str) -> None:
        codes = [process.wait() for process in self.processes]
        time.sleep(0.2)  # for the last lines
        job = self.cluster.jobs.get(name)
        if job and "deletionTimestamp" not in job["metadata"]:
            self.cluster.end(name, "Failed" if any(codes) else "Complete", message=f"exit codes {codes}")
