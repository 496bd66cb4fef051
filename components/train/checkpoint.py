"""Checkpoints that are whole or absent, in a place that outlives the process and is found again.

::

    <state>/training/<key>-<slot>/
        lock                                  held while a training works here
        run.json                              which run in MLflow is its own
        step-00001000-<digest>.safetensors    weights, average, optimisers; history and facts as metadata
        samples/                              the grids taken so far
        finished                              the model folder it ended with, once it did

The key is made of the parameters, the dataset and the code, so that a killed run that is started again, or
a pod that Kubeflow starts again, finds its own checkpoints and no other's. Where the same training runs
twice at once, the second takes the next slot. A finished training's folder stays for a day: the pod that
trained may die before what it made is in a safe place, and its successor then ends at once, with the same model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import filelock
import safetensors.torch
from safetensors import SafetensorError, safe_open

from components.manifest import write_file
from components.progress import say
from components.train.state import TrainingState

_KEPT = 2
_DAY = 24 * 3600.0
_ABANDONED_SECONDS, _FINISHED_SECONDS = 30 * _DAY, _DAY
_FINISHED = "finished"
_SCHEMA = "1"


class CheckpointError(ValueError):
    """A checkpoint cannot be written; those before it are as they were."""


@contextlib.contextmanager
def workplace(trainings: Path, key: str, model: Path) -> Iterator[Path]:
    """The folder of this training, locked: an interrupted one's, or a fresh one.

    ``model`` is the folder that it is to write, another for every run of the pipeline, the same for every
    retry of a task. Interrupted trainings that nobody came back to in 30 days are removed, finished ones
    after a day. Raises ``CheckpointError`` where no folder can be made.
    """
    _sweep(trainings)
    for slot in count(1):
        folder = trainings / f"{key}-{slot}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(folder / "lock", timeout=0)
            lock.acquire()
        except filelock.Timeout:
            continue
        except OSError as error:
            raise CheckpointError(
                f"no checkpoints can be kept in {folder} ({error.strerror}); point KINTSUGI_HOME at a disk "
                "that can be written and that outlives the pod"
            ) from None
        with lock:
            if _result_of(folder) not in ("", str(model)):
                _empty(folder)
            for partial in folder.glob(".step-*"):  # of whoever was killed while saving
                partial.unlink()
            yield folder
        return


class Checkpoints:
    """The checkpoints of one training, the newest last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint, and remove those that are not among the newest two.

        Raises ``CheckpointError`` when the disk is full or cannot be written; older checkpoints stay.
        """
        facts = {"schema": _SCHEMA, "num_steps": state.num_steps, "history": state.history, "facts": state.facts}
        content = safetensors.torch.save(state.tensors, {"kintsugi": json.dumps(facts)})
        name = f"step-{state.num_steps:08d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
        try:
            write_file(self.folder / name, content)
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint of step {state.num_steps} cannot be written to {self.folder} ({error.strerror}); "
                "the one before it is intact: make room or make the folder writable, and run again"
            ) from None
        for old in self._paths()[:-_KEPT]:
            old.unlink(missing_ok=True)

    def newest(self, tell: Callable[[str], str] = str) -> TrainingState | None:
        """The newest checkpoint that is whole; damaged ones are named and passed over. ``None`` without any.

        ``tell`` takes the name of the one that this process found, and returns the name of the one to read: processes
        on several nodes may not see the same files at the same moment, and must go on from the same.
        """
        found, state = self._newest()
        chosen = tell(found)
        if chosen == found:
            return state
        return _read(self.folder / chosen) if chosen else None

    def _newest(self) -> tuple[str, TrainingState | None]:
        for path in reversed(self._paths()):
            try:
                return path.name, _read(path)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                say(f"warning: the checkpoint {path} is damaged ({error}); going back to the one before it")
        return "", None

    def finish(self, model: Path) -> None:
        """Note that the training ended, and what it made lies in ``model``."""
        try:
            write_file(self.folder / _FINISHED, str(model))
        except OSError:
            _empty(self.folder)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))


def _result_of(folder: Path) -> str:
    """The model folder of a finished training, ``""`` for another."""
    try:
        return (folder / _FINISHED).read_text()
    except FileNotFoundError:
        return ""


def _empty(folder: Path) -> None:
    """Forget the training, but not who holds the lock; last that it was finished, lest half of it be resumed."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == _FINISHED):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def _sweep(trainings: Path) -> None:
    for folder in trainings.glob("*-*"):
        with contextlib.suppress(filelock.Timeout, OSError):
            patience = _FINISHED_SECONDS if _result_of(folder) else _ABANDONED_SECONDS
            if time.time() - folder.stat().st_mtime > patience:
                with filelock.FileLock(folder / "lock", timeout=0):
                    shutil.rmtree(folder)


def _read(path: Path) -> TrainingState:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest()[:16] != path.stem.rpartition("-")[2]:
        raise ValueError("its content is not what was written")
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["kintsugi"])
    return TrainingState(facts["num_steps"], safetensors.torch.load(content), facts["history"], facts["facts"])
