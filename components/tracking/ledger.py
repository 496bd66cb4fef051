"""The ledger of a registered model: who was champion, in one order that all processes agree on.

MLflow moves an alias for whoever comes last and remembers nothing. But it numbers the versions of a registered
model one after the other, atomically, on every store. So an entry of the ledger is a version of a registered
model of its own, ``<name>.ledger``, whose tags say who becomes champion and whom that replaces. An entry counts
only if the one that it replaces is champion by then, which makes it a compare-and-set: of many that replace the
same champion the first counts, and everybody who reads the ledger sees the same one. An entry that a retried
request wrote twice counts once.

MLflow never gives a number twice, so an entry that somebody deleted leaves a hole, and the last number that was
seen is kept with the registered model itself: a history that is not whole is refused, and goes on only where a
person says who is champion (an entry ``restore``, which replaces whoever it may be).
"""

from __future__ import annotations

import getpass
import random
import socket
import textwrap
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, ParamSpec, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.tracking.versions import RegistryError

SUFFIX = ".ledger"
_SEEN = "ledger"  # tag of the registered model
_SECONDS = 60.0  # for which a write is tried again
_BUSY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
"""What a store answers while others write: a locked database, a number that another has just taken."""
_PAGE = 10_000
_LONGEST_WHY = 1000  # characters; MLflow keeps a tag of a registered model of 5000

T = TypeVar("T")
P = ParamSpec("P")


def _here() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user without a name, as in many containers
        return socket.gethostname()


class Entry(BaseModel):
    """One change of the champion."""

    model_config = ConfigDict(frozen=True)

    action: Literal["promote", "rollback", "restore"]
    version: str  # who becomes champion
    replaced: str  # who was; "" for none
    why: str = ""
    run: str = ""  # in MLflow, of the training that made it
    by: str = Field(default_factory=_here)
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def sentence(self) -> str:
        """All of it for a person, as on MLflow's page of the registered model."""
        instead = f" in place of version {self.replaced}" if self.replaced else ""
        why = f": {textwrap.shorten(self.why, _LONGEST_WHY, placeholder=' …')}" if self.why else ""
        return f"version {self.version}{instead} since {self.at}, {self.action} by {self.by}, run {self.run}{why}"


class HistoryError(RegistryError):
    """Entries of the ledger are gone."""


class Ledger:
    """The champions of one registered model, in order."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self._model, self._name = client, name, f"{name}{SUFFIX}"

    def history(self) -> list[Entry]:
        """The entries that count, oldest first; the last one names the champion.

        Raises ``HistoryError`` where entries were deleted.
        """
        seen, entries = self._seen(), self._read()  # in this order: others may be writing
        self._require_whole(entries, seen)
        counting: dict[str, Entry] = {}
        champion = ""
        for entry in entries.values():
            if entry and entry.id not in counting and (entry.action == "restore" or entry.replaced == champion):
                counting[entry.id], champion = entry, entry.version
        return list(counting.values())

    def append(self, entry: Entry, source: str, run_id: str) -> bool:
        """Write an entry; whether it counts. ``source`` and ``run_id`` are those of the version it promotes."""
        insist(make_registered_model, self._client, self._name, "Who was champion, see its versions' tags")
        tags = {name: str(value) for name, value in entry.model_dump().items()}
        insist(self._client.create_model_version, self._name, source, run_id or None, tags)
        return any(found.id == entry.id for found in self.history())

    def note_seen(self) -> None:
        """Keep with the registered model which entry was the last."""
        entries = self._read()
        seen = f"{_restored(entries)[0]}:{max(entries, default=0)}"
        if self._seen() != seen:
            insist(self._client.set_registered_model_tag, self._model, _SEEN, seen)

    def _read(self) -> dict[int, Entry | None]:
        """What each number holds, in order; ``None`` for a version that somebody made by hand."""
        versions = self._client.search_model_versions(f"name = '{self._name}'", max_results=_PAGE)
        entries: dict[int, Entry | None] = {}
        for version in sorted(versions, key=lambda version: int(version.version)):
            try:
                entries[int(version.version)] = Entry.model_validate(version.tags)
            except ValidationError:
                entries[int(version.version)] = None
        return entries

    def _require_whole(self, entries: dict[int, Entry | None], seen: str) -> None:
        restored, since = _restored(entries)
        epoch, _, last = seen.rpartition(":")
        lost = set(range(since, max(entries, default=0))) - set(entries)
        known = {"", *(entry.id for entry in entries.values() if entry)}
        if lost or epoch not in known or (epoch == restored and max(entries, default=0) < int(last or 0)):
            raise HistoryError(
                f"entries of the history of {self._model!r} (registered model {self._name!r}) were deleted, so nobody "
                f"knows who is champion; 'kintsugi rollback VERSION --model-name {self._model}' says so, and goes on"
            )

    def _seen(self) -> str:
        try:
            return str(self._client.get_registered_model(self._model).tags.get(_SEEN, ""))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return ""
            raise


def _restored(entries: dict[int, Entry | None]) -> tuple[str, int]:
    """The id of the last ``restore`` and its number; ``""`` and 1 where there is none."""
    found = [(entry.id, number) for number, entry in entries.items() if entry and entry.action == "restore"]
    return found[-1] if found else ("", 1)


def make_registered_model(client: MlflowClient, name: str, description: str | None = None) -> None:
    """Make a registered model, unless there is one of this name."""
    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def insist(write: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Write, for a while again where the store says that others were writing at that moment."""
    until = time.monotonic() + _SECONDS
    while True:
        try:
            return write(*args, **kwargs)
        except MlflowException as error:
            if error.error_code not in _BUSY or time.monotonic() > until:
                raise
            time.sleep(random.uniform(0.02, 0.3))
