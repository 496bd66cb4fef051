"""Asked to stop, a training finishes its step, writes a checkpoint, and ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The training was asked to stop, by signal ``number``."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stopping:
    """Turns signals into ``Stopped`` at once; shielded, or with ``at_once`` off, they are left in ``asked``."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.asked = 0  # the signal's number
        self._at_once, self._shielded = at_once, False

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Take over the signals that stop a process."""
        previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """What must not be cut in two: signals are only remembered."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.asked = number
        if self._at_once and not self._shielded:
            raise Stopped(number)
