"""A journal on disk between a training and a slow or absent server.

What the training logs is appended to a folder and delivered from there by a thread, in order, and
again after every failure until the receiver took it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.journal.spool import Entry, JournalBusy, Spool, Write, last_entry, remove
from components.progress import explain, say

__all__ = ["Entry", "Journal", "JournalBusy", "Refused", "Send", "Write", "last_entry", "remove", "replay"]

_FIRST_PAUSE, _LONGEST_PAUSE, _CLOSING_PAUSE = 0.5, 60.0, 1.0  # seconds between two attempts
_FAILURES_TO_TELL = 2
_POLL_SECONDS = 0.1

Send = Callable[[list[Entry]], None]


class Refused(Exception):
    """What ``send`` raises for an entry that the receiver will never take; it is left out."""


class Journal:
    """A spool with a thread that delivers it. ``append`` touches the disk alone, never the network."""

    def __init__(self, folder: Path, send: Send, *, receiver: str = "the server", linger: float = 2.0) -> None:
        """Open or resume the journal in ``folder``.

        ``send`` gets consecutive entries, several only where all are metrics. It is called from one
        thread, and again with the same entries until it raises nothing or ``Refused``. ``linger`` is
        for how many seconds entries wait for others to travel with. Raises ``JournalBusy``.
        """
        self.folder = folder
        self._spool = Spool(folder, writing=True)
        self._send, self._receiver, self._linger = send, receiver, linger
        self._change = threading.Condition()
        self._closing = self._abandoned = self._carrying = False
        self._accepted = self._failures = self._refused = 0
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def append(
        self, id: str, kind: str, payload: dict[str, Any], write: Write | None = None, expendable: bool = False
    ) -> bool:
        """Append an entry, unless one of this ``id`` is there already; ``""`` is always new.

        ``write`` puts what belongs to the entry into a folder; where the disk is nearly full,
        ``expendable`` entries are left out. A disk that takes nothing costs the entry and no error.
        Returns whether the entry was written.
        """
        with self._change:
            assert not self._closing, "the journal is closed"
            idle = not self._spool.waiting
            written = self._spool.append(id, kind, payload, write, expendable)
            if written and idle:
                self._change.notify_all()
            return written

    @property
    def waiting(self) -> int:
        """Number of entries that were not delivered yet."""
        return self._spool.waiting

    def close(self, timeout: float = 60.0, patience: float = 10.0) -> bool:
        """Deliver what waits and stop; True when all of it arrived, else the rest stays on disk.

        Takes ``timeout`` seconds at most, and ``patience`` where nothing is accepted for so long; an
        entry with files may need all of ``timeout``, unless the receiver fails.
        """
        deadline = time.monotonic() + timeout
        try:
            with self._change:
                self._closing = True
                self._change.notify_all()
                accepted_at, accepted = time.monotonic(), self._accepted
                while self._spool.waiting and time.monotonic() < deadline:
                    self._change.wait(_POLL_SECONDS)
                    if self._accepted != accepted:
                        accepted_at, accepted = time.monotonic(), self._accepted
                    uploading = self._carrying and not self._failures
                    if time.monotonic() - accepted_at > patience and not uploading:
                        break
        finally:
            drained = self._stop()
        return drained

    def _stop(self) -> bool:
        with self._change:
            drained = not self._spool.waiting
            self._abandoned = True
            self._change.notify_all()
        if drained:
            self._thread.join()
        self._spool.close()
        return drained

    def _work(self) -> None:
        pause = 0.0
        while self._rest(pause):
            try:
                self._deliver_waiting()
                pause = self._linger
            except Exception as error:
                pause = self._failed(error)
        self._spool.release()

    def _rest(self, seconds: float) -> bool:
        """Wait for an entry, and ``seconds`` more; whether there is anything left to do."""
        with self._change:
            self._change.wait_for(lambda: self._closing or self._spool.waiting)
            if self._closing:
                seconds = min(seconds, _CLOSING_PAUSE) if self._failures else 0
            was_closing = self._closing
            self._change.wait_for(lambda: self._abandoned or self._closing != was_closing, seconds)
            return not self._abandoned and self._spool.waiting > 0

    def _deliver_waiting(self) -> None:
        if not self._spool.claim(_POLL_SECONDS):
            raise JournalBusy(f"another process delivers {self.folder}")
        while not self._abandoned and (group := self._spool.take()):
            self._carrying = any(entry.files for entry in group)
            self._refused += _deliver(self._spool, self._send, group, tell=not self._refused)
            with self._change:
                self._accepted += 1
                self._change.notify_all()
            if self._failures >= _FAILURES_TO_TELL:
                say(f"{self._receiver} answers again; what waited is being delivered")
            self._failures = 0

    def _failed(self, error: Exception) -> float:
        """Tell of it once, and choose how long to wait for the next attempt."""
        self._failures += 1
        if self._failures == _FAILURES_TO_TELL and not self._abandoned:
            where = f"training goes on, and its log waits in {self.folder}"
            say(f"{self._receiver} does not take the log ({_short(error)}); {where}")
        return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures - 1, 10)))


def replay(folder: Path, send: Send, patience: float = 0.0) -> int:
    """Deliver what waits in a journal that nobody writes to any more; returns the number of entries.

    Raises ``JournalBusy`` when somebody does, or when another process delivers it for longer than
    ``patience`` seconds, and whatever ``send`` raises; what was delivered until then stays delivered.
    """
    spool = Spool(folder, writing=False)
    if not spool.claim(patience):
        raise JournalBusy(f"another process delivers the journal {folder}; wait for it to end")
    try:
        number = refused = 0
        while group := spool.take():
            refused += _deliver(spool, send, group, tell=not refused)
            number += len(group)
        return number
    finally:
        spool.release()


def _deliver(spool: Spool, send: Send, group: list[Entry], *, tell: bool) -> int:
    """Send a group, one by one where the receiver refuses it; returns how many it refused."""
    try:
        send(group)
        refused = 0
    except Refused as error:
        if len(group) > 1:
            refused = 0
            for entry in group:
                refused += _deliver(spool, send, [entry], tell=tell and not refused)
            return refused
        if tell:
            say(f"a logged {group[0].kind} was refused and is left out: {_short(error)}")
        refused = 1
    spool.advance(group)
    return refused


def _short(error: Exception) -> str:
    text = explain(error)
    return text if len(text) <= 200 else f"{text[:80]} ... {text[-110:]}"  # the cause is told last
