"""Where journals are, and how an interrupted training finds its own again.

::

    <state>/journals/<uid>/    a journal; uid is our own id of its run
    <place>/run.json           in the place of a training that may be resumed: which run is its own
"""

from __future__ import annotations

import os
import uuid
from datetime import datetime
from pathlib import Path

from components.config import RunConfig, Settings, TrainConfig
from components.journal import last_entry
from components.tracking.delivery import Identity

_FOLDER = "journals"


def open_place(settings: Settings, run: RunConfig, train: TrainConfig, place: Path | None) -> Path:
    """The folder of the journal of the training whose ``place`` this is; of a new one where it is ``None``."""
    identity = Identity.read(place) if place else None
    if identity is None:
        now = datetime.now()
        identity = Identity(
            uid=uuid.uuid4().hex,
            experiment=run.experiment,
            name=_name(run, train, now),
            started=int(now.timestamp() * 1000),
            injected=os.environ.get("MLFLOW_RUN_ID", ""),
            place=str(place.absolute()) if place else "",
        )
        if place:
            identity.write(place)
    journal = settings.state / _FOLDER / identity.uid
    identity.write(journal)
    return journal


def _name(run: RunConfig, train: TrainConfig, now: datetime) -> str:
    """The name that somebody chose and the time; else what is trained, as tables and legends show it, and the time."""
    if run.name != RunConfig().name:
        return f"{run.name}-{now:%Y%m%d-%H%M%S}"
    kind = train.model if train.quality == TrainConfig().quality else f"{train.model} {train.quality}"
    return f"{kind} {train.steps} steps {now:%d %b %H:%M:%S}"


def outcome_of(journal: Path) -> str:
    """How the training of a journal ended; ``""`` while it runs, and where it died without a word."""
    newest = last_entry(journal)
    return str(newest.payload["status"]) if newest and newest.kind == "end" else ""


def journals(settings: Settings) -> list[Path]:
    """The journals in the state folder."""
    return [path for path in sorted((settings.state / _FOLDER).glob("*")) if Identity.read(path)]


def resumable(identity: Identity) -> bool:
    """Whether the training of a run can still be taken up again."""
    found = Identity.read(Path(identity.place)) if identity.place else None
    return found is not None and found.uid == identity.uid
