"""What is served now, and how it is replaced: checked, loaded and warmed beside the old model, then switched.

A model folder holds ``generator.onnx`` and ``provenance.json``. The watched folder holds such folders and
``current.json``, ``{"model": "<folder>", "blind": "<folder or empty>"}``, replaced atomically by whoever fills it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from serving.engine import Engine

CURRENT, ENGINE, PROVENANCE = "current.json", "generator.onnx", "provenance.json"
POLL_SECONDS = 1.0

_LOG = logging.getLogger("kintsugi")
_WARM_UP_SIZES = ((64, 64), (96, 152))


class ModelError(ValueError):
    """A model folder is damaged, incomplete or repairs badly; the message says what was found."""


@dataclass
class Served:
    """Models that serve together; counted while requests use them, closed when the last has ended after a switch."""

    model: Engine
    blind: Engine | None
    since: datetime
    users: int = 0
    retired: bool = False

    @property
    def finder(self) -> Engine | None:
        """The model that repairs without a mask, if there is one."""
        return self.model if self.model.blind else self.blind

    def close(self) -> None:
        """Close the engines."""
        for engine in filter(None, (self.model, self.blind)):
            engine.close()


@dataclass(frozen=True)
class Refusal:
    """Models that were offered and not taken: which, why, and when (ISO 8601)."""

    model: str
    reason: str
    at: str

    def describe(self) -> dict[str, str]:
        """As a mapping."""
        return asdict(self)


@dataclass
class Models:
    """The models of the Bento (``bundled``: a folder with ``model/`` and maybe ``blind/``) or of a watched folder.

    ``refused`` counts the refusals, ``switched`` the switches. Raises ``ModelError`` when there is nothing to serve.
    """

    bundled: Path
    watched: Path | None = None
    on_switch: Callable[[Served], None] = lambda served: None
    refused: int = 0
    switched: int = 0
    last_refused: Refusal | None = None
    _served: Served | None = None
    _seen: tuple[int, int, int] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if (self.bundled / "model").is_dir():
            blind = self.bundled / "blind"
            self._switch(open_models(self.bundled / "model", blind if blind.is_dir() else None))
        self.refresh()
        if self._served is None:
            why = f": {self.last_refused.reason}" if self.last_refused else ""
            raise ModelError(f"there is no model to serve in {self.bundled} or {self.watched}{why}")

    @property
    def current(self) -> Served:
        """What serves now; ``use`` it for anything longer than a look."""
        assert self._served is not None
        return self._served

    @contextmanager
    def use(self) -> Iterator[Served]:
        """What serves now, kept open for the caller whatever is switched meanwhile."""
        with self._lock:
            served = self.current
            served.users += 1
        try:
            yield served
        finally:
            with self._lock:
                served.users -= 1
                unused = served.retired and not served.users
            if unused:
                served.close()

    def refresh(self) -> bool:
        """Look at the watched folder once; whether another model serves now. A bad one is refused, the old stays."""
        if self.watched is None or not self._changed(self.watched / CURRENT):
            return False
        name = CURRENT
        try:
            model, blind = _named_folders(self.watched)
            name = model.name
            served = open_models(model, blind)
        except Exception as error:  # whatever a strange file makes a runtime raise, the old model goes on
            self._refuse(name, error)
            return False
        self._switch(served)
        return True

    def watch(self) -> None:
        """Look every second, in a thread of its own, until ``close``."""
        threading.Thread(target=self._watch, name="models", daemon=True).start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.refresh()

    def _changed(self, path: Path) -> bool:
        seen = None
        with suppress(OSError):
            stat = path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        changed, self._seen = seen is not None and seen != self._seen, seen
        return changed

    def _switch(self, served: Served) -> None:
        with self._lock:
            old, self._served = self._served, served
            if old is not None:
                old.retired = True
            unused = old is not None and not old.users
        self.switched += old is not None
        self.on_switch(served)
        _LOG.info("model serves", extra={"model_version": str(served.model.provenance.get("version"))})
        if old is not None and unused:
            old.close()

    def _refuse(self, name: str, error: Exception) -> None:
        reason = f"{error}" if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        self.last_refused = Refusal(name, reason[:500], datetime.now(UTC).isoformat(timespec="seconds"))
        self.refused += 1
        _LOG.error("model refused", extra={"model": name, "reason": reason[:500]})


def open_models(model: Path, blind: Path | None) -> Served:
    """Check, load and warm up a model and, where there is one, a blind model beside it. Raises what goes wrong."""
    opened = [_open(folder) for folder in filter(None, (model, blind))]
    if blind is not None and not opened[1].blind:
        raise ModelError(f"{blind.name} is to repair without a mask, and cannot")
    return Served(opened[0], opened[1] if blind else None, datetime.now(UTC))


def _named_folders(watched: Path) -> tuple[Path, Path | None]:
    current: dict[str, Any] = json.loads((watched / CURRENT).read_text())
    names = [current["model"], current.get("blind") or ""]
    for name in names:
        if not isinstance(name, str) or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise ModelError(f"{CURRENT} names {name!r}, which is no folder beside it")
    if not names[0]:
        raise ModelError(f"{CURRENT} names no model")
    return watched / names[0], watched / names[1] if names[1] else None


def _open(folder: Path) -> Engine:
    for name in (ENGINE, PROVENANCE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder.name} holds no {name}")
    expected = str(json.loads((folder / PROVENANCE).read_text()).get("engine_sha256"))
    with (folder / ENGINE).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not hmac.compare_digest(found, expected):
        raise ModelError(f"{folder.name}/{ENGINE} has another digest than its provenance says; copy it again")
    engine = Engine.open(folder)
    _warm_up(engine)
    return engine


def _warm_up(engine: Engine) -> None:
    """One repair at two sizes. Raises ``ModelError`` where the result is no picture made of numbers."""
    for height, width in _WARM_UP_SIZES:
        image = np.broadcast_to(np.linspace(30, 220, width, dtype=np.uint8)[:, None], (height, width, 3)).copy()
        mask = np.zeros((height, width), np.uint8)
        mask[20:40, 24:44] = 1
        try:
            with np.errstate(invalid="raise"):  # NaN becomes no byte without a word
                repaired = engine.inpaint(image, mask)
                found = engine.find(image) if engine.blind else mask
        except FloatingPointError:
            raise ModelError("it repairs with what is no number") from None
        if repaired.shape != image.shape or repaired.dtype != np.uint8 or found.shape != mask.shape:
            raise ModelError(f"it answers {height}x{width} pixels with {repaired.dtype} {repaired.shape}")
