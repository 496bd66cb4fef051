"""The ledger of a registered model: who was champion, in one order that all processes agree on.

MLflow moves an alias for whoever comes last and remembers nothing. But it numbers the versions of a registered
model one after the other, atomically, on every store. So an entry of the ledger is a version of a registered
model of its own, ``<name>.ledger``, whose tags say who becomes champion and whom that replaces. An entry counts
only if the one that it replaces is champion by then, which makes it a compare-and-set: of many that replace the
same champion the first counts, and everybody who reads the ledger sees the same one.
"""

from __future__ import annotations

import getpass
import random
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, ParamSpec, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

SUFFIX = ".ledger"
_ATTEMPTS = 40
_BUSY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
"""What a store answers while others write: a locked database, a number that another has just taken."""
_PAGE = 10_000

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

    action: Literal["promote", "rollback"]
    version: str  # who becomes champion
    replaced: str  # who was; "" for none
    why: str = ""
    run: str = ""  # in MLflow, of the training that made it
    by: str = Field(default_factory=_here)
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)


class Ledger:
    """The champions of one registered model, in order."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self._name = client, f"{name}{SUFFIX}"

    def history(self) -> list[Entry]:
        """The entries that count, oldest first; the last one names the champion."""
        versions = self._client.search_model_versions(f"name = '{self._name}'", max_results=_PAGE)
        counting: list[Entry] = []
        for version in sorted(versions, key=lambda version: int(version.version)):
            try:
                entry = Entry.model_validate(version.tags)
            except ValidationError:
                continue  # somebody else's
            if not counting or entry.replaced == counting[-1].version:
                counting.append(entry)
        return counting

    def append(self, entry: Entry, source: str, run_id: str) -> bool:
        """Write an entry; whether it counts. ``source`` and ``run_id`` are those of the version it promotes."""
        insist(make_registered_model, self._client, self._name, "Who was champion, see its versions' tags")
        tags = {name: str(value) for name, value in entry.model_dump().items()}
        insist(self._client.create_model_version, self._name, source, run_id or None, tags)
        return any(found.id == entry.id for found in self.history())


def make_registered_model(client: MlflowClient, name: str, description: str | None = None) -> None:
    """Make a registered model, unless there is one of this name."""
    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def insist(write: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Write, again where the store says that others were writing at that moment."""
    for attempt in range(_ATTEMPTS):
        try:
            return write(*args, **kwargs)
        except MlflowException as error:
            if error.error_code not in _BUSY or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.02, 0.3))
    raise AssertionError
