"""What the steps of a local run print, made legible: progress bars, lines, and why a step failed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from components.progress import PREFIX


class _RateColumn(ProgressColumn):
    """How fast the work goes."""

    def render(self, task: Task) -> Text:
        """``12.5/s``, once it is known."""
        return Text(f"{task.speed:.3g}/s" if task.speed else "")


class EventStream(io.TextIOBase):
    """A text stream for kfp.local's output: shows the events, keeps everything in a log file."""

    def __init__(self, console: Console, log: Path) -> None:
        self._console = console
        self._log: TextIO = log.open("w")
        self._pending = ""
        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            _RateColumn(), TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._shown: dict[str, Any] = {}
        self.step = ""
        self.error: str | None = None

    def __enter__(self) -> EventStream:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        self._log.close()

    def writable(self) -> bool:
        """It can be written to."""
        return True

    def write(self, text: str) -> int:
        """Take text from kfp, in pieces of any size."""
        self._log.write(text)
        self._log.flush()
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            if line.strip().startswith(PREFIX):
                self._show(json.loads(line.strip().removeprefix(PREFIX)))
        return len(text)

    def _show(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "start":
                self.step = event["step"]
                self._console.print(f"[bold gold3]{self.step}[/]")
            case "line":
                self._console.print(f"  {event['text']}", markup=False, highlight=False, soft_wrap=True)
            case "progress":
                self._progress(event["label"], event["done"], event["total"])
            case "error":
                self.error = f"{event['step']}: {event['text']}"

    def _progress(self, label: str, done: int, total: int) -> None:
        if label not in self._shown:
            self._shown[label] = self._bars.add_task(label, total=total)
        self._bars.update(self._shown[label], completed=done)
        if done >= total:
            self._bars.remove_task(self._shown.pop(label))
