"""Where journals are: in the state folder, or elsewhere, where a pointer in the state folder says so.

::

    <state>/journals/<uid>/        a journal; uid is our own id of its run
    <state>/journals/<uid>.path    the path of one that lies elsewhere, as <folder>/<uid>
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from components.config import RunConfig, Settings
from components.journal import last_entry, remove
from components.manifest import write_file
from components.tracking.delivery import Identity

_FOLDER, _POINTER = "journals", ".path"


def make_place(settings: Settings, run: RunConfig, folder: Path | None) -> Path:
    """The folder of a new journal, which ``journals`` finds."""
    now = datetime.now()
    identity = Identity(
        uid=uuid.uuid4().hex,
        experiment=run.experiment,
        name=f"{run.name}-{now:%Y%m%d-%H%M%S}",
        started=int(now.timestamp() * 1000),
        injected=os.environ.get("MLFLOW_RUN_ID", ""),
        resumable=folder is not None,
    )
    known = settings.state / _FOLDER
    place = (folder or known).absolute() / identity.uid
    identity.write(place)
    if place.parent != known:
        write_file(known / f"{identity.uid}{_POINTER}", str(place))
    return place


def unfinished(folder: Path) -> Path | None:
    """The journal of an interrupted training."""
    found = [(identity.started, path) for path in folder.absolute().glob("*") if (identity := Identity.read(path))]
    open_ones = [path for _, path in sorted(found) if outcome_of(path) != "FINISHED"]
    return open_ones[-1] if open_ones else None


def outcome_of(journal: Path) -> str:
    """How the training of a journal ended; ``""`` while it runs, and where it died without a word."""
    newest = last_entry(journal)
    return str(newest.payload["status"]) if newest and newest.kind == "end" else ""


def journals(settings: Settings) -> list[Path]:
    """The journals in the state folder, and those elsewhere that it points to."""
    found = []
    for path in sorted((settings.state / _FOLDER).glob("*")):
        with suppress(FileNotFoundError):  # another process may have delivered it by now
            journal = Path(path.read_text()) if path.suffix == _POINTER else path
            if Identity.read(journal):
                found.append(journal)
            elif path.suffix == _POINTER:
                path.unlink()
    return found


def keep(settings: Settings, journal: Path) -> Path:
    """Move the journal of a finished training to the state folder, since what it lay beside goes away."""
    kept = settings.state / _FOLDER / journal.name
    if journal == kept:
        return kept
    try:
        shutil.move(journal, kept)
    except OSError:  # a full disk
        return journal
    _forget(settings, journal)
    return kept


def discard(settings: Settings, journal: Path) -> None:
    """Remove a journal that holds nothing any more that anybody needs."""
    remove(journal)
    _forget(settings, journal)


def _forget(settings: Settings, journal: Path) -> None:
    known = settings.state / _FOLDER
    if journal.parent != known:
        (known / f"{journal.name}{_POINTER}").unlink(missing_ok=True)
        with suppress(OSError):
            journal.parent.rmdir()  # where nothing else is in it
