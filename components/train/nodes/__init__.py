"""A training over several nodes of a cluster: this pod starts a TrainJob of Kubeflow Trainer and follows it.

Everything that the nodes share lies in the training's place on the volume (see ``workplace``): the dataset,
checkpoints, the model. The job is named after that place, so that a pod that Kubeflow starts again finds the one
that its predecessor started.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from components.cluster import ClusterError, require_cluster
from components.inpainting.dataset import KIND as DATASET
from components.manifest import MANIFEST, copy_folder, write_file
from components.progress import say
from components.train.nodes.following import Follower, WorkersFailed, ending
from components.train.nodes.jobs import TrainJobs
from components.train.nodes.manifest import train_job
from components.train.session import KIND, Order

__all__ = ["WorkersFailed", "train_on_nodes"]

_GOING = 600.0  # seconds that a deleted job may take to go
_PAUSE = 1.0
_STALE = 90.0
_JOINING = 3600  # seconds from the first node to the last: those of an autoscaled pool come one by one


def train_on_nodes(order: Order) -> None:
    """Train over ``order.config.num_nodes`` nodes, and write the model folder.

    A job that an earlier try left running is followed, one that failed is made anew and goes on from its newest
    checkpoint. SIGTERM deletes the job, whose processes then write a checkpoint. Raises ``ClusterError`` where the
    cluster does not allow it, and ``WorkersFailed`` where the job failed.
    """
    require_cluster(order.config.num_nodes)
    shared = _put_on_volume(order)
    if not _is_finished(shared.model):
        _run(shared)
    copy_folder(shared.model, order.model, KIND)
    shutil.rmtree(shared.dataset, ignore_errors=True)  # the model is kept for a pod that comes after this one


def _put_on_volume(order: Order) -> Order:
    """What all nodes read, in the training's place; the order as they find it there."""
    place = order.place
    shared = order.model_copy(
        update={"dataset": place / "dataset", "card": place / "card.html", "model": place / "model"}
    )
    if not _is_finished(shared.model):
        copy_folder(order.dataset, shared.dataset, DATASET)
        write_file(shared.card, order.card.read_bytes())
        write_file(place / "order.json", shared.model_dump_json())
    return shared


def _is_finished(model: Path) -> bool:
    return (model / MANIFEST).exists()


def _run(order: Order) -> None:
    name, jobs = f"kintsugi-{order.place.name}", TrainJobs()
    manifest = train_job(name, _command(order), order.config, order.run, jobs.own_pod())
    try:
        _start(jobs, name, manifest, order.model)
        Follower(jobs, name, order.config.num_nodes).follow()
    except KeyboardInterrupt:
        _cancel(jobs, name)
        raise
    if not _appears(order.model):
        raise WorkersFailed(
            f"TrainJob {name} is complete, but there is no model at {order.model}: do its nodes see the same volume as "
            "this pod? It must be ReadWriteMany"
        )


def _cancel(jobs: TrainJobs, name: str) -> None:
    try:
        jobs.delete(name)
        say(f"asked to stop: deleted TrainJob {name}; its nodes write a checkpoint, from which the same run goes on")
    except ClusterError as error:
        say(f"asked to stop, but TrainJob {name} may train on: {error}")


def _appears(model: Path) -> bool:
    """Whether the model is there; network file systems may show for a minute what was there before."""
    latest = time.monotonic() + _STALE
    while not _is_finished(model) and time.monotonic() < latest:
        time.sleep(_PAUSE)
    return _is_finished(model)


def _command(order: Order) -> list[str]:
    """``torchrun``; who is who comes from Trainer's ``PET_`` variables. After a death the cluster starts all anew."""
    return [sys.executable, "-m", "torch.distributed.run", "--max-restarts=0", f"--rdzv-conf=timeout={_JOINING}",
            "-m", "components.train.worker", str(order.place / "order.json")]  # fmt: skip


def _start(jobs: TrainJobs, name: str, manifest: dict[str, object], model: Path) -> None:
    """Make the job, or find the one that is under way, or that has just made the model."""
    latest = time.monotonic() + _GOING
    while time.monotonic() < latest:
        found = jobs.get(name)
        if found is None:
            if jobs.create(manifest):
                say(f"made TrainJob {name}")
                return
        elif "deletionTimestamp" not in found["metadata"]:
            how, why = ending(found)
            if how == "Complete" and _is_finished(model):
                return
            if not how:
                say(f"TrainJob {name} is under way; following it")
                return
            say(f"TrainJob {name} of an earlier try: {how} ({why}); making it anew")
            jobs.delete(name)
        time.sleep(_PAUSE)
    raise ClusterError(
        f"TrainJob {name} is deleted but does not go: 'kubectl describe trainjob {name}' says what holds it"
    )
