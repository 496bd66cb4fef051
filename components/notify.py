"""Who is told how a run ended: a webhook gets one JSON message, with the step that failed, why, and links."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from components.cluster import token
from components.config import Settings
from components.progress import explain, say

_FAILED = "FAILED"  # a run that went well is still RUNNING when its exit task starts, locally SUCCEEDED
_PATIENCE = 10  # seconds for each answer
_STEPS = ("plan", "ingest", "prepare", "train", "evaluate", "gate", "register", "package", "verify", "promote")


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    succeeded: bool
    run: str  # Kubeflow's id of it
    step: str = ""  # that failed
    why: str = ""
    promoted: bool = False
    link: str = ""

    @property
    def text(self) -> str:
        """One line for a person, with a link where one is known."""
        where = f"<{self.link}|run {self.run}>" if self.link else f"run {self.run}"
        if not self.succeeded:
            reason = f": {self.why}" if self.why else ""
            return f"Kintsugi {where} failed{f' in {self.step}' if self.step else ''}{reason}"
        return f"Kintsugi {where} succeeded, and the model {'is champion now' if self.promoted else 'was not promoted'}"


def notify(state: str, webhook: str, run_id: str, settings: Settings) -> None:
    """The exit task: tell the webhook, if there is one, how the run ended. It never fails a run itself.

    ``state`` is Kubeflow's, ``"FAILED"`` or something else; the rest is asked of its API.
    """
    address = webhook or settings.webhook
    if not address:
        return
    tasks, problem = _tasks(settings, run_id)
    step, why = _failure(tasks) if state == _FAILED else ("", "")
    if problem and state == _FAILED:
        why = why or problem
    promoted = any(_name(task) == "promote" and task.get("state") == "SUCCEEDED" for task in tasks)
    _post(address, Outcome(state != _FAILED, run_id, step, why, promoted, settings.kubeflow_page(run_id)))


@contextmanager
def telling(step: str, webhook: str, run_id: str, settings: Settings) -> Iterator[None]:
    """Tell the webhook of a failure in here: for the steps before the exit handler, which cannot hold a loop."""
    try:
        yield
    except Exception as error:
        if address := webhook or settings.webhook:
            _post(address, Outcome(False, run_id, step, explain(error), link=settings.kubeflow_page(run_id)))
        raise


def _post(address: str, outcome: Outcome) -> None:
    body = json.dumps({"text": outcome.text, **asdict(outcome)}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
    host = urlsplit(address).hostname
    try:
        urllib.request.urlopen(request, timeout=_PATIENCE).close()
        say(f"told {host}: {outcome.text}")
    except (OSError, ValueError) as error:
        say(f"{host} was not told ({explain(error)}): {outcome.text}")


def _tasks(settings: Settings, run_id: str) -> tuple[list[Mapping[str, Any]], str]:
    """The tasks of a run as Kubeflow's API lists them, or why it does not."""
    request = urllib.request.Request(f"{settings.kubeflow_api.rstrip('/')}/apis/v2beta1/runs/{run_id}")
    if secret := token():
        request.add_header("Authorization", f"Bearer {secret}")
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            details = json.load(answer).get("run_details") or {}
            return details.get("task_details") or [], ""
    except (OSError, ValueError) as error:
        reason = f"the API at {settings.kubeflow_api} did not tell it ({explain(error)})"
        return [], f"the reason is in the run's page; {reason}"


def _failure(tasks: list[Mapping[str, Any]]) -> tuple[str, str]:
    """The step that failed first, and what Kubeflow says of it; the groups around it only repeat that it did."""
    failed = [task for task in tasks if task.get("state") == _FAILED]
    steps = [task for task in failed if _name(task) in _STEPS] or failed
    if not steps:
        return "", ""
    first = min(steps, key=lambda task: task.get("end_time") or "9")
    said = (first.get("error") or {}).get("message", "")
    return _name(first), " ".join(said.split())[:500]


def _name(task: Mapping[str, Any]) -> str:
    return str(task.get("display_name") or "").removesuffix("-driver")
