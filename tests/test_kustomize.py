"""The Kubernetes manifests: rendered by kubectl, against the API's schemas, and what must hold for every object."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.network_policies import Peer, reaches

ROOT = Path(__file__).parent.parent / "infra" / "kustomize"
OVERLAYS = ("local", "gke")
KUBERNETES = "1.33"
OURS = "kintsugi"
Manifest = dict[str, Any]
pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed; it renders the overlays")
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@functools.cache
def render(overlay: str) -> list[Manifest]:
    command = ["kubectl", "kustomize", str(ROOT / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(overlay: str) -> Iterator[tuple[str, Manifest]]:
    """The pod templates of what runs, by name."""
    for manifest in render(overlay):
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]


def containers(overlay: str) -> Iterator[tuple[str, Manifest]]:
    for name, pod in pods(overlay):
        for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
            yield f"{name}/{container['name']}", container


def of_kind(overlay: str, kind: str) -> dict[str, Manifest]:
    return {m["metadata"]["name"]: m for m in render(overlay) if m["kind"] == kind}


@every_overlay
def test_every_object_is_valid(overlay: str) -> None:
    for manifest in render(overlay):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    service = of_kind("local", "Service")["serving"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service | {"spec": {"port": 80}}, KUBERNETES, strict=True)


def test_a_file_holds_one_kind() -> None:
    for path in ROOT.rglob("*.yaml"):
        documents = list(yaml.safe_load_all(path.read_text()))
        assert len(documents) == 1, path
        if isinstance(documents[0], dict):
            assert path.stem.split("-")[0] in (documents[0]["kind"].lower(), "default", "dns"), path


@every_overlay
def test_everything_lies_in_a_namespace_that_is_restricted_or_is_kubeflows(overlay: str) -> None:
    (namespace,) = of_kind(overlay, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for manifest in render(overlay):
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] in (OURS, "kubeflow"), manifest["metadata"]
    for _, pod in pods(overlay):
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False


@every_overlay
def test_containers_ask_for_what_they_use_and_can_do_nothing_else(overlay: str) -> None:
    for name, container in containers(overlay):
        for bound in ("requests", "limits"):
            assert set(container["resources"][bound]) >= {"cpu", "memory", "ephemeral-storage"}, name
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert "/tmp" in mounts, name


@every_overlay
def test_no_image_is_whatever_is_latest(overlay: str) -> None:
    for name, container in containers(overlay):
        assert re.search(r":\d+\.\d+[\d.]*(@sha256:[0-9a-f]{64})?$", container["image"]), (name, container["image"])
        ours = "kintsugi" in container["image"]
        assert ours or "@sha256:" in container["image"], (name, container["image"])


@every_overlay
def test_what_listens_is_probed(overlay: str) -> None:
    for name, container in containers(overlay):
        if container.get("ports"):
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), name
    (serve,) = (container for name, container in containers(overlay) if name == "serving/serve")
    assert serve["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert serve["readinessProbe"]["httpGet"]["path"] == "/readyz"


@every_overlay
def test_selectors_find_the_pods_they_mean(overlay: str) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(overlay)}
    for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
        for name, manifest in of_kind(overlay, kind).items():
            assert manifest["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
    for name, service in of_kind(overlay, "Service").items():
        assert service["spec"]["selector"].items() <= labels[name].items()
    scaler = of_kind(overlay, "HorizontalPodAutoscaler")["serving"]["spec"]
    assert scaler["scaleTargetRef"]["name"] in of_kind(overlay, "Deployment")
    assert scaler["metrics"][0]["containerResource"]["container"] == "serve"


@every_overlay
def test_the_follower_fills_the_folder_that_the_server_reads(overlay: str) -> None:
    found = dict(containers(overlay))
    server, follower = found["serving/serve"], found["serving/follow"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in server["volumeMounts"]
    assert {"name": "models", "mountPath": "/models"} in follower["volumeMounts"]
    assert {"name": "KINTSUGI_MODELS", "value": "/models"} in server["env"]
    assert follower["command"] == ["kintsugi", "follow", "--output", "/models"]
    assert follower["restartPolicy"] == "Always"
    assert "current.json" in follower["startupProbe"]["exec"]["command"][-1]


@every_overlay
def test_mlflow_proxies_artifacts_asks_for_a_login_and_knows_its_own_names(overlay: str) -> None:
    (settings,) = (m["data"] for m in of_kind(overlay, "ConfigMap").values() if "MLFLOW_HOST" in m["data"])
    hosts = settings["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert {f"mlflow.{OURS}.svc.cluster.local:5000", "mlflow:5000", "localhost:*"} <= set(hosts)
    assert settings["MLFLOW_SERVE_ARTIFACTS"] == "true"
    assert settings["MLFLOW_ARTIFACTS_DESTINATION"]
    (server,) = (container for name, container in containers(overlay) if name == "mlflow/mlflow")
    assert server["command"] == ["mlflow", "server", "--app-name", "basic-auth"]
    assert {"secretRef": {"name": "mlflow"}} in server["envFrom"]  # its login, and the key of its webhooks' secrets


@every_overlay
def test_steps_may_do_what_they_need_and_no_more(overlay: str) -> None:
    (role,) = of_kind(overlay, "Role").values()
    granted = {(r, verb) for rule in role["rules"] for r in rule["resources"] for verb in rule["verbs"]}
    assert granted == {
        ("persistentvolumeclaims", "get"), ("persistentvolumeclaims", "create"),
        ("trainjobs", "get"), ("trainjobs", "create"), ("trainjobs", "delete"),
        ("pods", "get"), ("pods", "list"), ("pods/log", "get"),
    }  # fmt: skip
    assert not any("*" in pair for pair in granted)
    assert not any(resource in ("secrets", "pods/exec", "roles") for resource, _ in granted)
    assert not of_kind(overlay, "ClusterRole")


SERVING = Peer(OURS, {"app.kubernetes.io/name": "serving"})
MLFLOW = Peer(OURS, {"app.kubernetes.io/name": "mlflow"})
POSTGRES = Peer(OURS, {"app.kubernetes.io/name": "postgres"})
STRAY = Peer(OURS, {"app.kubernetes.io/name": "stray"})
STEP = Peer("kubeflow", {"app.kubernetes.io/name": "kintsugi"})
TRAINER = Peer("kubeflow", {"app.kubernetes.io/name": "kintsugi", "app.kubernetes.io/component": "train"})
STRANGER = Peer("default", {"app.kubernetes.io/name": "anything"})
CLIENT = Peer("shop", namespace_labels={"kintsugi/access": "serving"})
DNS = Peer("kube-system", {"k8s-app": "kube-dns"})
WEB = Peer(address="93.184.216.34")
METADATA = Peer(address="169.254.169.252")
BALANCER = Peer(address="35.191.0.9")
CLOUD_SQL = Peer(address="10.30.0.3")
GOOGLE = Peer(address="199.36.153.9")

REACHABLE = [  # source, target, port, in which overlays
    (STEP, MLFLOW, 5000, OVERLAYS),
    (TRAINER, MLFLOW, 5000, OVERLAYS),
    (TRAINER, TRAINER, 29400, OVERLAYS),
    (TRAINER, TRAINER, 40123, OVERLAYS),
    (TRAINER, WEB, 443, OVERLAYS),
    (STEP, SERVING, 3000, OVERLAYS),
    (CLIENT, SERVING, 3000, OVERLAYS),
    (SERVING, MLFLOW, 5000, OVERLAYS),
    (SERVING, DNS, 53, OVERLAYS),
    (MLFLOW, DNS, 53, OVERLAYS),
    (MLFLOW, POSTGRES, 5432, ("local",)),
    (MLFLOW, CLOUD_SQL, 5432, ("gke",)),
    (MLFLOW, GOOGLE, 443, ("gke",)),
    (MLFLOW, METADATA, 988, ("gke",)),
    (BALANCER, SERVING, 3000, ("gke",)),
    (STRANGER, SERVING, 3000, ()),
    (STRANGER, TRAINER, 29400, ()),
    (STEP, TRAINER, 29400, ()),
    (SERVING, TRAINER, 29400, ()),
    (STRANGER, MLFLOW, 5000, ()),
    (CLIENT, MLFLOW, 5000, ()),
    (STRAY, MLFLOW, 5000, ()),
    (STRAY, POSTGRES, 5432, ()),
    (STEP, POSTGRES, 5432, ()),
    (SERVING, POSTGRES, 5432, ()),
    (SERVING, WEB, 443, ()),
    (SERVING, METADATA, 988, ()),
    (SERVING, SERVING, 3000, ()),
    (STEP, SERVING, 22, ()),
    (MLFLOW, WEB, 443, ()),
    (MLFLOW, SERVING, 3000, ()),
    (POSTGRES, WEB, 443, ()),
    (WEB, MLFLOW, 5000, ()),
    (WEB, SERVING, 3000, ()),
    (BALANCER, MLFLOW, 5000, ()),
]


@every_overlay
@pytest.mark.parametrize(("source", "target", "port", "where"), REACHABLE)
def test_who_reaches_whom(overlay: str, source: Peer, target: Peer, port: int, where: tuple[str, ...]) -> None:
    policies = list(of_kind(overlay, "NetworkPolicy").values())
    assert reaches(policies, source, target, port) == (overlay in where)


def test_without_policies_everybody_reaches_everybody() -> None:
    assert reaches([], STRANGER, MLFLOW, 5000)
