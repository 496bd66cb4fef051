"""Keep a folder of models in step with the registry's champions, for a server that watches it.

::

    <folder>/
      current.json                 {"model": "kintsugi-v3-1f3a...", "blind": "kintsugi-blind-v1-..." or ""}
      kintsugi-v3-1f3a.../         generator.onnx, provenance.json
      lock                         one follower writes at a time

A model's folder is complete or absent, and ``current.json`` names only what is there. Nothing is taken whose digest
is not the one in the registry; while MLflow is away everything stays as it is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from components.config import ServeConfig, Settings
from components.manifest import read_json, write_file
from components.progress import STOP_SIGNALS, explain, say

CURRENT = "current.json"
ENGINE, PROVENANCE = "generator.onnx", "provenance.json"
_INCOMING = ".incoming-"
KEPT = 2
"""Folders that stay of each model: the champion's, and the one before, which a server may still be reading."""


class Follower:
    """Fills a folder with the champion of a model, and the champion of the blind model that goes with it.

    Parameters
    ----------
    settings, config:
        Which registry, and which models of it.
    folder:
        What to fill; it is made.
    say:
        Told once of everything that changes: a champion, a refused one, MLflow away and back.
    """

    def __init__(self, settings: Settings, config: ServeConfig, folder: Path, say: Callable[[str], None]) -> None:
        self._settings, self._config, self._folder, self._say = settings, config, folder, say
        self._said = ""

    def follow(self, interval: float, ended: Callable[[], bool]) -> None:
        """Look every ``interval`` seconds until ``ended``."""
        while not ended():
            self.look()
            wake = time.monotonic() + interval
            while time.monotonic() < wake and not ended():
                time.sleep(min(0.5, interval))

    def look(self) -> bool:
        """Bring the folder in step now; whether that was possible. What prevents it is said, and kept out."""
        from components.tracking import impatient

        try:
            with impatient(), FileLock(self._prepared() / "lock"):
                told = self._update()
        except Exception as error:  # MLflow raises almost anything when it is away, and a follower outlives that
            served = read_current(self._folder)["model"]
            self._tell(f"not in step with the registry: {explain(error)}; "
                       + (f"{served} stays" if served else "there is no model yet"))  # fmt: skip
            return False
        self._tell(told)
        return True

    def _update(self) -> str:
        """Fetch what is missing, point at it, remove what is old; returns what there is to say."""
        from components.tracking import RegistryError

        for left in self._folder.glob(f"{_INCOMING}*"):  # by a follower that was killed
            shutil.rmtree(left, ignore_errors=True)
        current = read_current(self._folder)
        wanted = {"model": self._fetch(self._config.model_name), "blind": ""}
        if not wanted["model"]:
            return f"no model was promoted yet as {self._config.model_name!r}; waiting for one"
        trouble = ""
        if self._config.paired:
            try:
                wanted["blind"] = self._fetch(self._config.paired)
            except RegistryError as refused:
                wanted["blind"], trouble = current["blind"], f"; {refused}"
        if wanted != current:
            write_file(self._folder / CURRENT, json.dumps(wanted))
        self._prune(wanted)
        return f"current: {wanted['model']}, without a mask: {wanted['blind'] or 'none'}{trouble}"

    def _fetch(self, name: str) -> str:
        """The champion's folder, made where it is missing; ``""`` where there is no champion.

        Raises ``RegistryError`` where it may not be served, and for files with other digests than the registry's.
        """
        from components.tracking import Registry

        registry = Registry(self._settings, name)
        champion = registry.servable_champion()
        if champion is None:
            return ""
        folder = champion.bento_folder
        engine, provenance = (champion.files.get(f"{folder}/{file}", "") for file in (ENGINE, PROVENANCE))
        target = self._folder / f"{name}-v{champion.number}-{engine[:12]}-{provenance[:6]}"
        if not target.is_dir():
            with tempfile.TemporaryDirectory(prefix=_INCOMING, dir=self._folder) as scratch:
                files = Path(scratch) / "files"
                for file in (ENGINE, PROVENANCE):
                    registry.download(champion, f"{folder}/{file}", files)
                files.rename(target)
        return target.name

    def _prune(self, wanted: dict[str, str]) -> None:
        """Remove all but the ``KEPT`` newest folders of each model."""
        for name in filter(None, (self._config.model_name, self._config.paired)):
            ours = re.compile(rf"{re.escape(name)}-v\d+-[0-9a-f]{{12}}-[0-9a-f]{{6}}")
            folders = [path for path in self._folder.iterdir() if ours.fullmatch(path.name)]
            for old in sorted(folders, key=lambda path: path.stat().st_mtime_ns, reverse=True)[KEPT:]:
                if old.name not in wanted.values():
                    shutil.rmtree(old, ignore_errors=True)

    def _prepared(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def _tell(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            self._say(sentence)


def models_folder(settings: Settings, config: ServeConfig) -> Path:
    """Where a state folder keeps the models that are served."""
    return settings.state / "models" / config.model_name


def start_follower(settings: Settings, config: ServeConfig, interval: float) -> Path:
    """Bring the state's models in step, then have a process do so that ends with this one; returns their folder."""
    folder = models_folder(settings, config)
    Follower(settings, config, folder, say).look()
    names = ["--model-name", config.model_name, "--blind-model", config.blind_model]
    ends = ["--interval", str(interval), "--parent", str(os.getpid()), "-o", str(folder)]
    subprocess.Popen([sys.executable, "-m", "pipelines.cli", "follow", *names, *ends], stdin=subprocess.DEVNULL)
    return folder


def follow_until_stopped(follower: Follower, interval: float, parent: int) -> None:
    """Follow until a signal says to stop, or the process ``parent`` that started this one ends; 0: none did."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, stop)
    with suppress(KeyboardInterrupt):
        follower.follow(interval, lambda: bool(parent) and os.getppid() != parent)


def read_current(folder: Path) -> dict[str, str]:
    """The model folders that a server is to use, by ``model`` and ``blind``; empty names where there are none."""
    try:
        return {"model": "", "blind": ""} | dict(read_json(folder / CURRENT))
    except (OSError, ValueError, TypeError):
        return {"model": "", "blind": ""}
