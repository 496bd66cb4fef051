"""Submit a run to a Kubeflow Pipelines server, follow it, and say how it ended."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from components.config import PipelineConfig
from components.form import fill
from pipelines.kubeflow import Kubeflow
from pipelines.login import Access, SubmitError

STEPS = ("plan", "ingest", "prepare", "train", "evaluate", "gate", "register", "package", "verify", "promote")
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_MARKS = {"SUCCEEDED": "✓", "FAILED": "✗", "RUNNING": "…", "CANCELED": "✗", "CACHED": "✓", "SKIPPED": "-"}
_POLL_SECONDS = 5.0
_MISSES = 20  # answers in a row that may fail to come
_CRON_FIELD = re.compile(r"[\d*/,\-?LW#A-Za-z]+")


@dataclass
class Progress:
    """What is known of a run that is followed."""

    state: str = ""
    steps: dict[str, str] = field(default_factory=dict)  # their states
    why: dict[str, str] = field(default_factory=dict)  # what is said of a step that failed

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in _ENDED

    @property
    def failed(self) -> str:
        """The step that failed, ``""`` where none did."""
        return next((name for name in STEPS if self.steps.get(name) == "FAILED"), "")

    @classmethod
    def of(cls, run: Any) -> Progress:
        """Read a run as the API tells it; of a step that was tried again the last word counts."""
        progress = cls(state=str(run.state or ""))
        details = (run.run_details.task_details if run.run_details else None) or []
        for task in details:
            name = str(task.display_name or "")
            if name in STEPS:
                progress.steps[name] = str(task.state or "")
                if task.error and task.error.message:
                    progress.why[name] = " ".join(task.error.message.split())[:500]
        return progress


@dataclass(frozen=True)
class Submission:
    """What is to run: a compiled pipeline, the run, the presets that it was made with, the account of its pods."""

    package: Path
    config: PipelineConfig
    preset: str = ""
    account: str = ""

    @property
    def form(self) -> dict[str, Any]:
        """The run form, filled."""
        return dict(fill(self.config, self.preset))


def submit_pipeline(submission: Submission, access: Access, console: Console) -> tuple[Kubeflow, str]:
    """Upload a pipeline, if the server lacks it, and start a run of it; returns the server and the run's id."""
    server = Kubeflow(access)
    version, experiment = _prepare(server, submission, console)
    run_id = server.start(version, experiment, submission.config.run.name, submission.form, submission.account)
    console.print(f"run      {server.page(run_id)}")
    return server, run_id


def schedule_pipeline(submission: Submission, access: Access, console: Console, cron: str) -> str:
    """The same as a recurring run; ``cron`` has five fields, or six with seconds. Returns the page of it."""
    trigger, server = check_cron(cron), Kubeflow(access)
    version, experiment = _prepare(server, submission, console)
    name, form, account = submission.config.run.name, submission.form, submission.account
    return server.page(server.schedule(version, experiment, name, form, account, trigger), "recurringrun")


def check_cron(cron: str) -> str:
    """A schedule as the server takes it, with seconds. Raises ``SubmitError`` where it is none."""
    fields = cron.split()
    if len(fields) not in (5, 6) or not all(_CRON_FIELD.fullmatch(part) for part in fields):
        raise SubmitError(f"--schedule {cron!r} is no schedule; write e.g. '0 3 * * *' for every night at three (UTC)")
    return " ".join(fields if len(fields) == 6 else ["0", *fields])


def follow_run(
    server: Kubeflow, run_id: str, config: PipelineConfig, console: Console, poll: float = _POLL_SECONDS
) -> str:
    """Print the steps of a run as they begin and end, and its page; returns what became of the model.

    Raises ``SubmitError`` with the step that failed, and why. A server that stays away for a while is waited for.
    """
    shown: dict[str, str] = {}
    with console.status("waiting for the first step"):
        for progress in _watch(server, run_id, poll):
            for name in STEPS:
                state = progress.steps.get(name, "")
                if state and state != shown.get(name) and state in _MARKS:
                    console.print(f"{_MARKS[state]} {name}{'' if state != 'RUNNING' else ' runs'}", highlight=False)
                    shown[name] = state
    page = server.page(run_id)
    if progress.state != "SUCCEEDED":
        step, why = progress.failed, progress.why.get(progress.failed, "its log says why")
        where = f"in {step} ({why})" if step else f"({progress.state.lower()})"
        raise SubmitError(f"the run failed {where}; {page}")
    console.print(f"run      {page}")
    return verdict(progress, config)


def verdict(progress: Progress, config: PipelineConfig) -> str:
    """What became of the model of a run that went well, told by the steps that ran."""
    done = {name for name, state in progress.steps.items() if state in ("SUCCEEDED", "CACHED")}
    if "promote" in done and config.gate.mode != "manual":
        return "Promoted: the model is champion now."
    if "promote" in done:
        return "Admitted: the model is challenger, 'kintsugi promote' makes it champion."
    if "verify" in done:
        return "Not promoted: the model answered differently when served."
    if config.gate.mode == "dry_run":
        return "Dry run: the model is not registered; the gate's report says what it would have decided."
    return "Refused: the model is not registered; the gate's report says why."


def _prepare(server: Kubeflow, submission: Submission, console: Console) -> tuple[tuple[str, str], str]:
    pipeline, version, uploaded = server.upload(submission.package)
    page = f"{server.host}/#/pipelines/details/{pipeline}/version/{version}"
    console.print(f"pipeline {page}{'' if uploaded else ', there already'}")
    return (pipeline, version), server.experiment(submission.config.run.experiment)


def _watch(server: Kubeflow, run_id: str, poll: float) -> Iterator[Progress]:
    misses = 0
    while True:
        try:
            progress = Progress.of(server.run(run_id))
            misses = 0
            yield progress
            if progress.ended:
                return
        except SubmitError as error:
            misses += 1
            if misses > _MISSES:
                raise SubmitError(f"{error}; the run goes on, see {server.page(run_id)}") from None
        time.sleep(poll)
