"""Follows a TrainJob from this pod: prints what its first node prints, tells what it waits for, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator

from components.progress import say
from components.train.nodes.jobs import LogBroke, NoAnswer, TrainJobs
from components.train.nodes.manifest import Json

_PAUSE = 5.0  # seconds between two looks at the job
_PATIENCE = 900.0  # seconds that the API may be away, as while a control plane is upgraded
_ORDINARY = ("ContainerCreating", "PodInitializing")


class WorkersFailed(ValueError):
    """The processes of a training did not finish."""


def ending(job: Json) -> tuple[str, str]:
    """How a job ended, ``"Complete"``, ``"Failed"`` or ``""``, and why."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return condition["type"], f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return "", ""


class Follower:
    """Follows one TrainJob of ``num_nodes`` nodes."""

    def __init__(self, jobs: TrainJobs, name: str, num_nodes: int) -> None:
        self._jobs, self._name, self._num_nodes = jobs, name, num_nodes
        self._told = self._printed = ""  # what was said last, and the time of the last line
        self._answered = self._heard = time.monotonic()

    def follow(self) -> None:
        """Return when the job is complete.

        Raises ``WorkersFailed`` with the reason when it failed or somebody deleted it, and ``ClusterError`` when the
        API refuses to tell, or does not answer for a quarter of an hour.
        """
        while True:
            try:
                if self._look():
                    return
                self._answered = time.monotonic()
            except NoAnswer as error:
                if time.monotonic() - self._answered > _PATIENCE:
                    raise
                self._tell(str(error))
            time.sleep(_PAUSE)

    def _look(self) -> bool:
        job = self._jobs.get(self._name)
        if job is None:
            raise WorkersFailed(f"somebody deleted TrainJob {self._name}; run it again, and it goes on")
        pods = self._jobs.pods(self._name)
        how, why = ending(job)
        if not how:
            self._tell("; ".join(_obstacles(job, pods, self._num_nodes)))
        self._answered = time.monotonic()
        for pod in pods[:1]:
            while not self._print(pod) and how:  # that was not all of it, and there is no other time
                self._tell(f"the log of {pod['metadata']['name']} broke off; taking it up again")
        if how == "Failed":
            raise WorkersFailed(
                f"TrainJob {self._name} failed ({why}): what its first node printed is above, and 'kubectl describe "
                f"trainjob {self._name}' says more; the same run goes on from the last checkpoint"
            )
        return how == "Complete"

    def _print(self, pod: Json) -> bool:
        """Print the log from where it was left, and return whether that was all of it.

        Times are of one format and length, so they compare as text.
        """
        if not any("waiting" not in status.get("state", {}) for status in _containers(pod)):
            return True
        since = int(time.monotonic() - self._heard) + 60 if self._printed else None  # clocks differ: a minute more
        try:
            for moment, line in self._jobs.log(pod["metadata"]["name"], since):
                if moment > self._printed:
                    say(line)
                    self._printed, self._heard = moment, time.monotonic()
        except LogBroke:
            return False
        return True

    def _tell(self, text: str) -> None:
        if text and text != self._told:
            say(text)
        self._told = text


def _obstacles(job: Json, pods: list[Json], num_nodes: int) -> Iterator[str]:
    """What a job that has not ended waits for."""
    if job.get("spec", {}).get("suspend"):
        yield "the TrainJob is suspended, as a queue does until there is room"
    elif len(pods) < num_nodes:
        yield f"waiting for Kubeflow Trainer to make the pods of {num_nodes} nodes ({len(pods)} are there)"
    reasons = [reason for reason in map(_obstacle, pods) if reason]
    if reasons:
        yield f"{len(reasons)} of {num_nodes} nodes wait: {reasons[0]}"


def _obstacle(pod: Json) -> str:
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('message', 'there is no room')} (run_gpu and train_num_processes ask for it)"
    for status in _containers(pod):
        waiting = status.get("state", {}).get("waiting", {})
        if waiting and waiting.get("reason") not in _ORDINARY:
            return f"{waiting.get('reason')}: {waiting.get('message', '')}".rstrip(": ")
    return ""


def _containers(pod: Json) -> list[Json]:
    found: list[Json] = pod.get("status", {}).get("containerStatuses", [])
    return found
