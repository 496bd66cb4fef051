"""How many repairs run and wait at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter


class Busy(Exception):
    """Too many requests wait; another try makes sense after ``retry_after`` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class Overdue(Exception):
    """The request waited until its deadline."""


class Admission:
    """Slots for repairs, which take all cores each; and a bounded queue for them."""

    def __init__(self, concurrent: int = 2, queue: int = 32) -> None:
        self._limiter, self._queue = CapacityLimiter(concurrent), queue

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self._limiter.statistics().tasks_waiting

    @property
    def running(self) -> int:
        """Requests that hold one."""
        return int(self._limiter.borrowed_tokens)

    @asynccontextmanager
    async def slot(self, pixels: int) -> AsyncIterator[None]:
        """Wait for a slot for a picture of so many pixels. Raises ``Busy`` when too many wait already."""
        if self.waiting >= self._queue:
            raise Busy(retry_after=5)
        async with self._limiter:
            yield
