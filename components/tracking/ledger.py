"""The ledger of a registered model: who was champion, in one order that all processes agree on.

MLflow moves an alias for whoever comes last and remembers nothing. But it numbers the versions of a registered
model one after the other, atomically, on every store. So an entry of the ledger is a version of a registered
model of its own, ``<name>.ledger``, whose tags say who becomes champion, and which entry that follows. An entry counts
only if the one that it follows is the last by then, which makes it a compare-and-set: of many that follow the same
entry the first counts, and everybody who reads the ledger sees the same one. What comes late, or twice, counts for
nothing.

MLflow never gives a number twice, so an entry that somebody deleted leaves a hole, and the last number is kept as a tag
of the registered model, once the change is complete: a history that is not whole is refused, and goes on only where a
person says who is champion. That entry, a ``restore``, names the tag that it supersedes; of several the first counts.
"""

from __future__ import annotations

import getpass
import random
import socket
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    after: str | None = (
        None  # the id of the entry that it follows, "" for none; of a restore the tag that it supersedes
    )
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
        entries, _ = self._read_whole()
        return [entry for _, entry in _counting(entries)]

    def append(self, entry: Entry, source: str, run_id: str) -> bool:
        """Write an entry; whether it counts. ``source`` and ``run_id`` are those of the version it promotes."""
        insist(make_registered_model, self._client, self._name, "Who was champion, see its versions' tags")
        tags = {name: str(value) for name, value in entry.model_dump().items()}
        insist(self._client.create_model_version, self._name, source, run_id or None, tags)
        return any(found.id == entry.id for found in self.history())

    def note_seen(self) -> None:
        """Keep with the registered model which entry is the last."""
        while True:  # again after a write, which may have undone that of another
            entries, seen = self._read_whole()
            found = _Seen(_restored(entries)[0], max(entries, default=0))
            if found.epoch == seen.epoch and found.number <= seen.number:
                return
            insist(self._client.set_registered_model_tag, self._model, _SEEN, str(found))

    def seen(self) -> str:
        """What ``note_seen`` kept; ``""`` for nothing."""
        return read_model(self._client, self._model)[1].get(_SEEN, "")

    def _read_whole(self) -> tuple[Entries, _Seen]:
        """All entries and what was seen of them. Raises ``HistoryError`` where some are gone."""
        seen, entries = _Seen.parse(self.seen()), self._read()  # in this order: others may be writing
        epoch, since = _restored(entries)
        superseded = {_Seen.parse(entry.after or "").epoch for _, entry in _restores(entries)}
        lost = set(range(since, max(entries, default=0))) - set(entries)
        if lost or (seen.epoch == epoch and max(entries, default=0) < seen.number) or (
            seen.epoch not in {epoch, *superseded}
        ):  # fmt: skip
            raise HistoryError(
                f"entries of the history of {self._model!r} (registered model {self._name!r}) were deleted, so nobody "
                f"knows who is champion; 'kintsugi rollback VERSION --model-name {self._model}' says so, and goes on"
            )
        return entries, seen

    def _read(self) -> Entries:
        versions = self._client.search_model_versions(f"name = '{self._name}'", max_results=_PAGE)
        entries: Entries = {}
        for version in sorted(versions, key=lambda version: int(version.version)):
            try:
                entries[int(version.version)] = Entry.model_validate(version.tags)
            except ValidationError:
                entries[int(version.version)] = None
        return entries


Entries = dict[int, Entry | None]
"""What each number of a ledger holds, in order; ``None`` for a version that somebody made by hand."""


@dataclass(frozen=True)
class _Seen:
    """The last number of a ledger, and the ``restore`` since which it counts; ``""`` for none."""

    epoch: str
    number: int

    @classmethod
    def parse(cls, tag: str) -> _Seen:
        """What a tag says. One that nobody can read names an epoch that there never was."""
        epoch, _, number = tag.rpartition(":")
        return cls(epoch, int(number or 0)) if not number or number.isdecimal() else cls(tag, 0)

    def __str__(self) -> str:
        return f"{self.epoch}:{self.number}"


def _counting(entries: Entries) -> Iterator[tuple[int, Entry]]:
    """The entries that count, with their numbers."""
    last, champion, superseded = "", "", set()
    for number, entry in entries.items():
        if entry is None:
            continue
        if entry.action == "restore":
            epoch = _Seen.parse(entry.after or "").epoch
            counts = epoch not in superseded
            superseded.add(epoch)
        elif entry.after is None:  # as Kintsugi wrote them at first
            counts = entry.replaced == champion
        else:
            counts = entry.after == last
        if counts:
            last, champion = entry.id, entry.version
            yield number, entry


def _restores(entries: Entries) -> list[tuple[int, Entry]]:
    return [(number, entry) for number, entry in _counting(entries) if entry.action == "restore"]


def _restored(entries: Entries) -> tuple[str, int]:
    """The id of the last ``restore`` and its number; ``""`` and 1 where there is none."""
    found = _restores(entries)
    return (found[-1][1].id, found[-1][0]) if found else ("", 1)


def read_model(client: MlflowClient, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """A registered model's aliases, with the version numbers that they point at, and its tags; none of what is not."""
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}, {}
        raise
    return {alias: str(number) for alias, number in model.aliases.items()}, model.tags  # sqlite gives integers


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
