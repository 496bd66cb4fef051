"""Runs: started by a training, through a journal; opened by later steps, which log at once."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.config import RunConfig, Settings, TrainConfig
from components.journal import Entry, Journal, JournalBusy, remove, replay
from components.manifest import Manifest, write_json
from components.progress import explain, say
from components.tracking.client import MODEL_TRAINING, TrackingError, address, connect, impatient, web_pages
from components.tracking.delivery import COMPLETE, Delivery, Identity, find_runs
from components.tracking.places import journals, open_place, outcome_of, resumable
from components.tracking.run import Run, at_once
from components.tracking.system import system_metrics

_HYPERPARAMETERS = ("model", "quality", "steps", "batch_size", "learning_rate", "adversarial_weight", "seed")
"""Few, because MLflow heads every picture of its image grid with all of them."""
_LINGER_SECONDS = 3.0
_SECONDS_TO_CLOSE = {"server": (60.0, 10.0), "store": (600.0, 60.0), "killed": (5.0, 3.0)}
"""For what waits when a training ends: in all, and while nothing is accepted. A local store always answers;
who preempts a node gives its pods 15 seconds."""
_SECONDS_FOR_ANOTHER = 60.0  # process to end the delivery that it is at


@contextmanager
def start_run(
    settings: Settings, run: RunConfig, train: TrainConfig, dataset: Manifest, place: Path | None = None
) -> Iterator[Run]:
    """Open the run of a training, log its parameters, dataset and system metrics, and close it with its outcome.

    Nothing here waits for MLflow: all goes into a journal, which a thread delivers. ``place`` is a
    folder that a resumed training finds again, the one of its checkpoints, and that no other training
    uses: a training that is started again with it goes on in the same run. What MLflow did not take when
    a training ends is kept for ``open_run``, ``sync`` and the next run.

    Where the environment names a run (``MLFLOW_RUN_ID``, as Kubeflow injects it) that one is resumed,
    and left open for whoever started it.
    """
    settings.make_state()
    status = "FAILED"
    with impatient():
        journal, delivery = _open_journal(settings, run, train, place)
        current = Run(journal.append, delivery)
        try:
            _deliver_older(settings, journal.folder)
            _describe(current, journal, run, train, dataset)
            with system_metrics(current.log_metrics, delivery.identity.started):
                yield current
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            _finish(journal, delivery, status)


def open_run(settings: Settings, run_id: str, uid: str = "") -> Run:
    """The run that an earlier step started, to log more into it, at once.

    It is named by MLflow's id, or by the ``uid`` of a training that ended before MLflow answered; what
    the training's journal still holds is delivered first. Raises ``TrackingError`` where that fails.
    """
    if uid:
        run_id = _delivered(settings, run_id, uid)
    if not run_id:
        raise TrackingError("this model's manifest names no run in MLflow; run the train step again")
    identity = Identity(uid=uid or uuid.uuid4().hex, experiment="", name="", started=0, injected=run_id)
    delivery = Delivery(settings, identity)
    return Run(at_once(delivery), delivery)


def run_page(settings: Settings, run_id: str) -> str:
    """The address of a run's page in MLflow; ``""`` where MLflow is no server."""
    if not (pages := web_pages(settings)):
        return ""
    experiment = connect(settings).get_run(run_id).info.experiment_id
    return f"{pages}/experiments/{experiment}/runs/{run_id}?{MODEL_TRAINING}"


def sync(settings: Settings) -> int:
    """Deliver all journals that no training writes to any more; returns the number of entries delivered.

    Raises ``TrackingError`` where MLflow does not take them.
    """
    number = 0
    with impatient():
        for journal in journals(settings):
            try:
                number += _deliver(settings, journal, _SECONDS_FOR_ANOTHER)
            except JournalBusy:
                continue
            except Exception as error:
                raise TrackingError(f"{_failure(settings, error)}; nothing is lost, {journal} keeps it") from error
    return number


def _open_journal(
    settings: Settings, run: RunConfig, train: TrainConfig, place: Path | None
) -> tuple[Journal, Delivery]:
    try:
        return _start_journal(settings, open_place(settings, run, train, place))
    except JournalBusy as error:
        say(f"{error}. This training is logged as a run of its own")
        return _start_journal(settings, open_place(settings, run, train, None))


def _start_journal(settings: Settings, folder: Path) -> tuple[Journal, Delivery]:
    identity = Identity.read(folder)
    assert identity is not None
    delivery = Delivery(settings, identity, folder, alone=True)
    return Journal(folder, delivery.send, receiver=_receiver(settings), linger=_LINGER_SECONDS), delivery


def _describe(current: Run, journal: Journal, run: RunConfig, train: TrainConfig, dataset: Manifest) -> None:
    everything = {"train": train.model_dump(), "run": run.model_dump(), "dataset": dataset.model_dump()}
    parameters = {f"hp.{name}": str(getattr(train, name)) for name in _HYPERPARAMETERS}
    described = {"source": dataset.facts["source"], "digest": dataset.digest, "facts": dataset.facts}
    journal.append("", "start", {})
    journal.append("parameters", "parameters", parameters)
    current.log_written(lambda files: write_json(files / "parameters.json", everything), "")
    journal.append("dataset", "dataset", described)


def _finish(journal: Journal, delivery: Delivery, status: str) -> None:
    """Log the outcome, and wait a while for MLflow to have everything."""
    settings, outcome = delivery.settings, {"status": status}
    written = journal.append("", "end", outcome)
    kind = "killed" if status == "KILLED" else "store" if settings.mlflow_uri.startswith("sqlite") else "server"
    if not journal.close(*_SECONDS_TO_CLOSE[kind]):
        say(
            f"{_receiver(settings)} has not taken all of this run: {journal.waiting} entries wait in {journal.folder}. "
            "The training is not affected; the next step delivers them, and so does 'kintsugi sync'"
        )
        return
    if not written:  # on a full disk
        with suppress(Exception):
            delivery.send([Entry(0, int(time.time() * 1000), "", "end", outcome, None)])
    if status == "FINISHED" or not resumable(delivery.identity):
        remove(journal.folder)


def _deliver_older(settings: Settings, own: Path) -> None:
    """Deliver in the background what earlier trainings left."""
    older = [journal for journal in journals(settings) if journal != own]

    def deliver() -> None:
        for journal in older:
            try:
                _deliver(settings, journal)
            except JournalBusy:
                continue
            except Exception:
                return  # MLflow does not answer; this run's own journal says so

    if older:
        threading.Thread(target=deliver, name="older journals", daemon=True).start()


def _deliver(settings: Settings, journal: Path, patience: float = 0.0) -> int:
    """Deliver what waits in a journal that nobody writes to, and remove it unless the training may be resumed."""
    identity = Identity.read(journal)
    assert identity is not None
    delivery = Delivery(settings, identity, journal)
    number, outcome = replay(journal, delivery.send, patience), outcome_of(journal)
    abandoned = not resumable(identity)
    if not outcome and delivery.run_id and (number or abandoned):
        delivery.close_as_killed()
    if outcome == "FINISHED" or abandoned:
        remove(journal)
    return number


def _delivered(settings: Settings, run_id: str, uid: str) -> str:
    """MLflow's id of a training's run, once all of it is there."""
    journal = next((path for path in journals(settings) if path.name == uid), None)
    where = str(journal) if journal else f"the state folder of the machine or volume that trained, as journals/{uid}"
    advice = f"The training is safe, its log waits in {where}. Run this step again later, or 'kintsugi sync' there"
    try:
        with impatient():
            if journal:
                _deliver(settings, journal, _SECONDS_FOR_ANOTHER)
            client = connect(settings)
            found = [client.get_run(run_id)] if run_id else find_runs(client, uid)
    except Exception as error:
        raise TrackingError(f"{_failure(settings, error)}. {advice}") from error
    if not found or found[0].data.tags.get(COMPLETE) != "true":
        raise TrackingError(f"{_receiver(settings)} does not hold all of the run {uid} yet. {advice}")
    return str(found[0].info.run_id)


def _receiver(settings: Settings) -> str:
    return f"MLflow at {address(settings)}"


def _failure(settings: Settings, error: Exception) -> str:
    return f"{_receiver(settings)} does not take the log ({explain(error)})"
