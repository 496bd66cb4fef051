"""What a running step tells its surroundings: progress, log lines, and why it failed.

A step runs in a process of its own, in a pod or under kfp.local, with no terminal. It prints plain
lines; where ``KINTSUGI_EVENTS=1`` is set it prints events instead, one JSON object a line behind
``PREFIX``, which ``pipelines.local`` turns into progress bars and one-sentence errors.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

PREFIX = "@kintsugi "
STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_MIN_SECONDS = 0.2  # between two progress events
_PLAIN_LINES = 5  # for one piece of work, where nobody draws bars

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def say(line: str) -> None:
    """Print one line for a person to read."""
    if not _emit("line", text=line):
        print(line, flush=True)


class Bar:
    """Progress of one long piece of work: a context to ``advance``."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self._next_time, self._lines = 0.0, 0
        self._since: tuple[float, int] | None = None  # when the first was done, and how many by then
        self._show()

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` as done."""
        self.move_to(self.done + steps)

    def move_to(self, done: int) -> None:
        """So many steps are done in all."""
        self.done = done
        if self._since is None and done:
            self._since = time.monotonic(), done
        self._show()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        _emit("progress", label=self.label, done=self.done, total=self.total)

    def _show(self) -> None:
        now = time.monotonic()
        if "KINTSUGI_EVENTS" in os.environ:
            if now >= self._next_time:
                self._next_time = now + _MIN_SECONDS
                _emit("progress", label=self.label, done=self.done, total=self.total)
        elif self.total and self.done * _PLAIN_LINES // self.total > self._lines:
            self._lines = self.done * _PLAIN_LINES // self.total
            print(f"{self.label}: {self.done}/{self.total}{self._pace()}", flush=True)

    def _pace(self) -> str:
        """Rate and time left, once they are known."""
        if self._since is None or not self._since[1] < self.done < self.total:
            return ""
        rate = (self.done - self._since[1]) / max(time.monotonic() - self._since[0], 1e-9)
        left = timedelta(seconds=round((self.total - self.done) / rate))
        return f", {rate:.3g} a second, {left} left"


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield ``items``, showing progress."""
    with Bar(label, total) as bar:
        for item in items:
            yield item
            bar.advance()


def step(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function as the entry of a pipeline step: announce it, and say in one sentence why it failed."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            _emit("start", step=name)
            previous = {number: signal.signal(number, _interrupt) for number in STOP_SIGNALS}
            try:
                return function(*args, **kwargs)
            except Exception as error:
                _emit("error", step=name, text=explain(error))
                raise
            except KeyboardInterrupt as interrupt:
                sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)

        return run

    return decorate


def _interrupt(number: int, *_: object) -> None:
    """A lost terminal and SIGTERM end a step as Ctrl-C does: whatever it was writing is taken back."""
    raise KeyboardInterrupt(number)


_UNREACHED = re.compile(
    r"HTTPS?ConnectionPool\(host='([^']+)', port=(\d+)\): Max retries.*?(?:\[Errno -?\d+\] |\()"
    r"(Connection refused|No route to host|Network is unreachable|connect timeout|Name or service not known|"
    r"Temporary failure in name resolution|No address associated with hostname)"
)  # as requests says it, and whoever repeats that


def explain(error: Exception) -> str:
    """An error as one sentence that says what to do."""
    text = " ".join(str(error).split())
    if any(words in text for words in ("No space left", "disk is full")):
        return "no space left on the device; free some, or point KINTSUGI_HOME at a larger disk, and run again"
    if unreached := _UNREACHED.search(text):
        return f"{unreached[1]}:{unreached[2]} cannot be reached ({unreached[3]}); check the address, and that it is up"
    if isinstance(error, PermissionError):
        return f"no permission to write or read {error.filename}; change its owner or choose another folder"
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}"


def _emit(event: str, **fields: Any) -> bool:
    if "KINTSUGI_EVENTS" not in os.environ:
        return False
    print(PREFIX + json.dumps({"event": event, **fields}), flush=True)
    return True
