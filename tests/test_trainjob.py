"""A training over several nodes: its TrainJob, and what the train step does with it at a cluster's API."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.cluster import ClusterError
from components.config import PipelineConfig, Settings
from components.inpainting.dataset import KIND as DATASET
from components.manifest import complete_folder, copy_folder, read_manifest
from components.plan import plan
from components.train import train
from components.train.checkpoint import Checkpoints
from components.train.nodes import WorkersFailed, following, train_on_nodes
from components.train.nodes.manifest import train_job
from components.train.session import KIND, Order
from components.train.state import TrainingState
from tests.cluster_api import Cluster, Json, strictly
from tests.conftest import SHORTEST, wait_for
from tests.trainjobs import CLAIM, NAME, VOLUME, Nodes, config, manifest, step_pod


def patched(job: Json) -> Json:
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert node["name"] == "node"
    template: Json = node["template"]["spec"]["template"]
    return template


def test_the_nodes_get_the_cards_of_the_profile_and_else_what_the_step_has() -> None:
    job = manifest(train_num_processes=2, run_spot=True)
    assert job["spec"]["runtimeRef"] == {"name": "torch-distributed"}
    assert job["spec"]["activeDeadlineSeconds"] == 172800
    trainer = job["spec"]["trainer"]
    assert trainer["image"] == "registry.example/kintsugi/gpu@sha256:1234"
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 2)
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "2"},
        "limits": {"cpu": "16", "nvidia.com/gpu": "2"},
    }
    assert [v["name"] for v in trainer["env"]] == ["KINTSUGI_VOLUME", "MLFLOW_TRACKING_URI", "AWS_SECRET_ACCESS_KEY"]
    spec = patched(job)["spec"]
    assert spec["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert [t["key"] for t in spec["tolerations"]] == ["nvidia.com/gpu", "cloud.google.com/gke-spot"]
    assert spec["serviceAccountName"] == "pipeline-runner"
    assert spec["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    (container,) = spec["containers"]
    assert container["securityContext"] == {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True}
    assert [m["mountPath"] for m in container["volumeMounts"]] == [VOLUME, "/dev/shm"]
    assert [volume["name"] for volume in spec["volumes"]] == ["kintsugi", "shm"]


def test_the_job_goes_with_the_run_and_can_be_told_from_others() -> None:
    job = manifest()
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w", "uid": "9"}
    labels = {"app.kubernetes.io/component": "train", "pipeline/runid": "run-1"}
    assert job["metadata"]["labels"] == patched(job)["metadata"]["labels"] == labels
    alone = step_pod()
    del alone["metadata"]["ownerReferences"]
    (owner,) = train_job(NAME, [], config().train, config().run, alone)["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Pod", "5")


def test_without_cards_any_nodes_will_do() -> None:
    job = manifest(run_gpu="none")
    assert not {"nodeSelector", "tolerations"} & set(patched(job)["spec"])
    assert "nvidia.com/gpu" not in str(job)


@pytest.mark.parametrize("gpu", ["p100", "l4", "none"])
@pytest.mark.parametrize("spot", [True, False])
def test_the_manifest_is_what_the_crd_takes(gpu: str, spot: bool) -> None:
    job = manifest(run_gpu=gpu, run_spot=spot)
    assert strictly(job) == job
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    with pytest.raises(ValueError, match="has fields that its CRD has not"):
        strictly({**job, "spec": {**job["spec"], "podTemplateOverrides": []}})  # of Trainer before 2.2
    with pytest.raises(ValueError, match="numNodes"):
        strictly({**job, "spec": {**job["spec"], "trainer": {"numNodes": "two"}}})


def test_plan_leaves_the_cards_to_the_nodes(pod: Cluster, tmp_path: Path) -> None:
    form = {"train_num_nodes": 2, "run_gpu": "l4", "run_volume": CLAIM}
    pod.claims[CLAIM] = {"metadata": {"name": CLAIM}, "spec": {"accessModes": ["ReadWriteMany"]}}
    *_, node_selector, tolerations, limit, image, _ = plan(form, "cpu:1", "gpu:1", tmp_path / "report")
    assert (node_selector, tolerations, limit, image) == ({}, [], "0", "gpu:1")
    assert "2 nodes at once with 1 free nvidia-l4" in (tmp_path / "report").read_text()
    pod.claims[CLAIM]["spec"]["accessModes"] = ["ReadWriteOnce"]
    with pytest.raises(ClusterError, match="is ReadWriteOnce"):
        plan(form, "cpu:1", "gpu:1", tmp_path / "report")


def test_one_machine_has_no_nodes(order: Order, settings: Settings) -> None:
    with pytest.raises(ClusterError, match="and this is one machine"):
        train_on_nodes(order)
    with pytest.raises(ClusterError, match="and this is one machine"):
        train(
            order.config,
            order.run,
            order.dataset,
            order.card,
            order.model,
            order.model.with_name("report.html"),
            settings,
        )


def small_folder(path: Path, kind: str) -> None:
    with complete_folder(path, kind) as draft:
        (draft.path / "content").write_text(kind)
        draft.facts = {"run_id": "r"}


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """What the step was told, in folders of its own."""
    small_folder(tmp_path / "dataset", DATASET)
    (tmp_path / "card").write_text("<html>")
    place = tmp_path / "training" / "0123456789abcdef-1"
    place.mkdir(parents=True)
    chosen = config()
    return Order(
        config=chosen.train, run=chosen.run, dataset=tmp_path / "dataset", card=tmp_path / "card",
        model=tmp_path / "model", place=place,
    )  # fmt: skip


@pytest.fixture
def step(pod: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """This process as the pod of the train step, in a hurry."""
    own = step_pod()
    pod.pods[own["metadata"]["name"]] = own
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    for module in (following, sys.modules[train_on_nodes.__module__]):
        monkeypatch.setattr(module, "_PAUSE", 0.02)
    monkeypatch.setattr(sys.modules[train_on_nodes.__module__], "_STALE", 0.2)
    return pod


def later(act: Callable[[], None]) -> Callable[[Json], None]:
    """Do something beside the server's answer."""
    return lambda _: threading.Thread(target=act, daemon=True).start()


def trains(cluster: Cluster, order: Order, lines: list[str]) -> Callable[[], None]:
    """Two nodes that print and hand on a model."""

    def run() -> None:
        cluster.add_node(NAME, 1)
        first = cluster.add_node(NAME, 0)
        for line in lines:
            cluster.print(first, line)
            time.sleep(0.02)
        while ("list", "pods") not in cluster.asked:
            time.sleep(0.02)
        assert (order.place / "dataset" / "manifest.json").exists()
        small_folder(order.place / "model", KIND)
        cluster.end(NAME, "Complete")

    return run


def fails(cluster: Cluster) -> Callable[[], None]:
    def run() -> None:
        cluster.print(cluster.add_node(NAME, 0), "RuntimeError: out of memory")
        cluster.end(NAME, "Failed", "FailedJobs", "jobset failed due to one or more job failures")

    return run


def test_a_complete_job_hands_on_its_model_and_its_log(
    step: Cluster, order: Order, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{number} [G loss: ü]" for number in range(30)]
    step.made = later(trains(step, order, lines))
    train_on_nodes(order)
    assert read_manifest(order.model, KIND).facts == {"run_id": "r"}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"made TrainJob {NAME}"
    assert [line for line in printed if "G loss" in line] == lines
    assert not (order.place / "dataset").exists()
    told = Order.model_validate_json((order.place / "order.json").read_bytes())
    assert (told.dataset, told.model) == (order.place / "dataset", order.place / "model")
    before = len(step.asked)
    train_on_nodes(order)  # the pod died before its model was uploaded
    assert len(step.asked) == before


def test_a_log_that_breaks_is_taken_up_again_where_it_broke(
    step: Cluster, order: Order, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"line {number}" for number in range(12)]
    step.breaks = [1, 1, 3, 4, 9, 12]
    step.made = later(trains(step, order, lines))
    train_on_nodes(order)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("line ")] == lines
    assert not step.breaks


def test_a_failed_job_says_why_and_is_made_anew_by_the_next_try(
    step: Cluster, order: Order, capsys: pytest.CaptureFixture[str]
) -> None:
    step.made = later(fails(step))
    with pytest.raises(WorkersFailed, match=r"failed \(FailedJobs: jobset failed.*the same run goes on from the last"):
        train_on_nodes(order)
    assert "out of memory" in capsys.readouterr().out
    assert not order.model.exists()
    step.made = later(trains(step, order, ["again"]))
    train_on_nodes(order)
    assert "of an earlier try: Failed" in capsys.readouterr().out
    assert order.model.exists()


def test_the_next_try_follows_the_job_that_is_under_way(
    step: Cluster, order: Order, capsys: pytest.CaptureFixture[str]
) -> None:
    step.jobs[NAME] = manifest()
    step.made = lambda _: pytest.fail("a second job was made")
    later(trains(step, order, ["going on"]))({})
    train_on_nodes(order)
    assert "is under way" in (printed := capsys.readouterr().out) and "going on" in printed
    assert ("create", "trainjobs") not in step.asked


def test_a_job_that_is_going_is_waited_for(step: Cluster, order: Order) -> None:
    going = manifest()
    going["metadata"]["deletionTimestamp"] = "2026-11-26T10:00:00Z"
    step.jobs[NAME] = going

    def gone() -> None:
        time.sleep(0.2)
        step.jobs.pop(NAME)

    step.made = later(trains(step, order, []))
    later(gone)({})
    train_on_nodes(order)
    assert order.model.exists()


def test_a_job_that_somebody_deletes_ends_the_step(step: Cluster, order: Order) -> None:
    step.made = later(lambda: step.jobs.clear())
    with pytest.raises(WorkersFailed, match="somebody deleted TrainJob"):
        train_on_nodes(order)


def test_a_complete_job_without_a_model_points_at_the_volume(step: Cluster, order: Order) -> None:
    step.made = later(lambda: step.end(NAME, "Complete"))
    with pytest.raises(WorkersFailed, match="do its nodes see the same volume as this pod"):
        train_on_nodes(order)


def test_what_the_job_waits_for_is_told_once(step: Cluster, order: Order, capsys: pytest.CaptureFixture[str]) -> None:
    full = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    unscheduled = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": full}]

    def run() -> None:
        time.sleep(0.2)
        for rank in range(2):
            step.add_node(NAME, rank, phase="Pending", conditions=unscheduled)
        time.sleep(0.2)
        pulling = {"name": "node", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
        for rank in range(2):
            step.add_node(NAME, rank, phase="Pending", containerStatuses=[pulling])
        time.sleep(0.2)
        trains(step, order, ["first line"])()

    step.made = later(run)
    train_on_nodes(order)
    printed = capsys.readouterr().out
    assert printed.count("waiting for Kubeflow Trainer to make the pods of 2 nodes (0 are there)") == 1
    assert printed.count(f"2 of 2 nodes wait: {full} (run_gpu") == 1
    assert printed.count("2 of 2 nodes wait: ImagePullBackOff: no such image") == 1


@pytest.mark.parametrize(
    ("what", "status", "message", "sentence"),
    [
        (("create", "trainjobs"), 404, "404 page not found", r"knows no TrainJobs: install Kubeflow Trainer"),
        (("create", "trainjobs"), 403, 'User "x" cannot create resource "trainjobs"',
         r"may not create trainjobs in namespace team: give it the role kintsugi-steps"),
        (("get", "pods"), 403, 'User "x" cannot get resource "pods"', r"may not get pods in namespace team"),
        (("list", "pods"), 403, 'User "x" cannot list resource "pods"', r"may not list pods"),
        (("get", "trainjobs"), 401, "Unauthorized", r"may not get trainjobs"),
        (("create", "trainjobs"), 403, "denied: spec.runtimeRef", r"refuses to create trainjobs \(docs/operations.md"),
        (("create", "trainjobs"), 503, "no endpoints for the webhook", r"is not well \(503: no endpoints"),
    ],
)  # fmt: skip
def test_what_the_cluster_refuses_is_one_sentence(
    what: tuple[str, str], status: int, message: str, sentence: str, step: Cluster, order: Order
) -> None:
    step.refusals[what] = (status, message)
    with pytest.raises(ClusterError, match=sentence):
        train_on_nodes(order)


def test_a_cluster_that_does_not_answer_is_one_sentence(
    step: Cluster, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(ClusterError, match="the cluster's API does not answer"):
        train_on_nodes(order)


def test_an_api_that_is_away_for_a_while_does_not_end_the_training(
    step: Cluster, order: Order, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        step.refusals[("list", "pods")] = (503, "upgrading")
        time.sleep(0.3)
        step.refusals.clear()
        trains(step, order, ["still here"])()

    step.made = later(run)
    train_on_nodes(order)
    assert "(503: upgrading)" in (printed := capsys.readouterr().out) and "still here" in printed


LAUNCH = """
import sys
from pathlib import Path
from components import cluster
from components.train import nodes
from tests.killing import attempt
cluster._ACCOUNT, nodes.following._PAUSE = Path(sys.argv[1]), 0.1
attempt(*map(Path, sys.argv[2:5]), sys.argv[5:])
"""


@pytest.mark.slow
def test_two_nodes_stopped_and_tried_again_train_bitwise_what_two_processes_of_one_do(
    step: Cluster, account: Path, small: Path, two_processes: Path, settings: Settings, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    volume, flat = tmp_path / "volume", {**SHORTEST, "train_num_nodes": 2, "run_gpu": "none"}
    volume.mkdir()
    step.pods[socket.gethostname()] = step_pod(str(volume))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "KINTSUGI_"))}
    nodes = Nodes(step, clean)
    step.made, step.deleted = nodes.made, nodes.deleted

    assignments = [f"{name}={value}" for name, value in flat.items()]
    first = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, account, small, tmp_path / "home", tmp_path, *assignments], text=True,
        env=clean | {"KINTSUGI_VOLUME": str(volume)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    wait_for(volume, "training/*/step-00000002-*")
    first.send_signal(signal.SIGTERM)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 128 + signal.SIGTERM, output
    assert "asked to stop: deleted TrainJob" in output
    assert all(process.wait() for process in nodes.processes) and not (tmp_path / "model").exists()
    stopped = max(int(path.name[5:13]) for path in volume.glob("training/*/step-*"))
    assert 2 <= stopped < 8

    chosen = PipelineConfig.from_flat(flat)
    mounted = settings.model_copy(update={"volume": volume})
    scores = train(
        chosen.train,
        chosen.run,
        small,
        small.with_name("card.html"),
        tmp_path / "model",
        tmp_path / "report.html",
        mounted,
    )
    printed = capsys.readouterr().out
    assert f"going on from the checkpoint of step {stopped}" in printed and "8 [D loss" in printed
    assert set(scores) >= {"mse", "ssim"}
    for name in ("generator.safetensors", "history.jsonl"):
        assert (tmp_path / "model" / name).read_bytes() == (two_processes / name).read_bytes(), name


def test_a_process_goes_on_from_the_checkpoint_that_the_first_one_found(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for num_steps in (1, 2):
        checkpoints.save(TrainingState(num_steps, {"x": torch.tensor([float(num_steps)])}, [], {}))
    older, newer = sorted(path.name for path in tmp_path.glob("step-*"))
    for told, num_steps in ((older, 1), (newer, 2)):
        found = checkpoints.newest({newer: told}.__getitem__)
        assert found and found.num_steps == num_steps
    assert checkpoints.newest(lambda _: "") is None


def test_a_copy_is_compared_with_its_manifest(tmp_path: Path) -> None:
    small_folder(tmp_path / "a", KIND)
    copy_folder(tmp_path / "a", tmp_path / "b", KIND)
    assert read_manifest(tmp_path / "b", KIND) == read_manifest(tmp_path / "a", KIND)
    (tmp_path / "a" / "content").write_text("other")
    with pytest.raises(ValueError, match="is not what its manifest says"):
        copy_folder(tmp_path / "a", tmp_path / "c", KIND)
    assert not (tmp_path / "c").exists()
