"""Which repairs run, which wait, and which are sent away at once, so that those let in are answered in time.

As many repairs run as there are cores, and half as many again as an engine computes at a time are let in: by Little's
law those take one and a half times as long as on an idle server, and a request that would wait longer is told when to
come back.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from components.inpainting.images import MAX_PIXELS
from components.inpainting.inpainter import usable_cores

DEADLINE = 30.0
"""Seconds that a request waits for its turn at most."""

_NEWEST = 0.2  # weight of the newest repair in the mean duration


class Busy(Exception):
    """Too many requests wait; another try makes sense after ``retry_after`` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class Overdue(Exception):
    """The request waited until its deadline."""


@dataclass
class Admission:
    """Slots for repairs, first come, first served; to be used in one event loop.

    ``concurrent`` repairs run at a time and ``queue`` may wait, in both of them pictures of ``max_pixels`` together;
    a picture larger than that is let in when no other is. ``deadline`` is in seconds.
    """

    concurrent: int = field(default_factory=usable_cores)
    queue: int = field(default_factory=usable_cores)
    max_pixels: int = 2 * MAX_PIXELS
    deadline: float = DEADLINE
    running: int = field(default=0, init=False)
    """Repairs that hold a slot."""
    pixels: int = field(default=0, init=False)
    """Of all pictures that run or wait."""
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque, init=False)
    _seconds: float = field(default=1.0, init=False)  # of a repair, a running mean

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    def fit(self, parallel: int) -> None:
        """Let in half as many again as the engine computes at a time, one at least."""
        self.queue = max(0, parallel + max(1, parallel // 2) - self.concurrent)

    def check(self) -> None:
        """Raise ``Busy`` when too many wait already; before a body is read, which takes its time as well."""
        if self.running >= self.concurrent and self.waiting >= self.queue:
            raise Busy(self._retry_after())

    @asynccontextmanager
    async def slot(self, pixels: int) -> AsyncIterator[None]:
        """Wait for a slot for a picture of so many pixels, and hold it.

        Raises ``Busy`` when too many wait already, and ``Overdue`` when the deadline passes first. A request that is
        cancelled while it waits leaves the queue.
        """
        self.check()
        if self.pixels and self.pixels + pixels > self.max_pixels:
            raise Busy(self._retry_after())
        self.pixels += pixels
        try:
            await self._enter()
            started = time.monotonic()
            try:
                yield
            finally:
                self._leave()
                self._seconds += _NEWEST * (time.monotonic() - started - self._seconds)
        finally:
            self.pixels -= pixels

    async def _enter(self) -> None:
        if self.running < self.concurrent and not self._waiting:
            self.running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self.deadline):
                await turn  # whoever leaves hands its slot over
        except TimeoutError:
            self._give_up(turn)
            raise Overdue from None
        except asyncio.CancelledError:
            self._give_up(turn)
            raise

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif turn.done() and not turn.cancelled():  # the slot came in the same moment
            self._leave()

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

    def _retry_after(self) -> int:
        """Seconds until those who run and wait now have probably ended."""
        return max(1, math.ceil(self._seconds * (self.running + self.waiting) / self.concurrent))
