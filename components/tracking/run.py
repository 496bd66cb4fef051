"""What steps log into a run, and where they record it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_RUN_NOTE

from components.inpainting.images import Bytes
from components.journal import Entry, Refused, Write
from components.tracking.client import GENERATOR_FOLDER, TrackingError
from components.tracking.delivery import PICTURE, Delivery
from components.tracking.logged import Subject


class Run:
    """One MLflow run; steps of the same pipeline run write into the same one."""

    def __init__(self, record: Callable[..., object], delivery: Delivery) -> None:
        """``record`` takes an entry: ``Journal.append``, or what delivers it at once."""
        self._record, self._delivery = record, delivery

    @property
    def id(self) -> str:
        """MLflow's id of the run; ``""`` as long as MLflow has not answered."""
        return self._delivery.run_id

    @property
    def uid(self) -> str:
        """Our own id of the run, known from the start; ``open_run`` finds the run by it."""
        return self._delivery.identity.uid

    def log_metrics(self, values: Mapping[str, float], step: int = 0, about: Subject | None = None) -> None:
        """Log metrics of one training step; the same ones of a step that is trained again are dropped.

        ``about`` ties them to a logged model and to the dataset that it was measured on.
        """
        names = hashlib.blake2b("\n".join(sorted(values)).encode(), digest_size=4).hexdigest()
        numbers = {name: float(value) for name, value in values.items()}
        tied = {"about": asdict(about)} if about else {}
        self._record(f"metrics:{step}:{names}", "metrics", {"values": numbers, "step": step} | tied)

    def log_image(self, picture: Bytes, key: str, step: int) -> None:
        """Log a uint8 ``H,W,3`` picture under a key that is stable across runs and steps."""

        def write(files: Path) -> None:
            np.save(files / PICTURE, picture)  # not PNG yet, which takes longer than the rest of logging

        self._record(f"image:{key}:{step}", "image", {"key": key, "step": step}, write, expendable=True)

    def log_file(self, path: Path, folder: str = "") -> None:
        """Log one file as an artifact."""
        self.log_written(lambda files: shutil.copyfile(path, files / path.name), folder)

    def log_page(self, path: Path, name: str) -> None:
        """Log an HTML page under a name that MLflow shows as one; Kubeflow's own paths have no suffix."""
        page = Path(name)
        folder = "" if page.parent == Path() else page.parent.as_posix()
        self.log_written(lambda files: shutil.copyfile(path, files / page.name), folder)

    def log_table(self, table: str, name: str) -> None:
        """Log a table, JSON as ``pandas.DataFrame.to_json(orient="split", index=False)`` writes it, for MLflow to show.

        In place of ``mlflow.log_table``, which adds to the rows of an earlier try of the same step.
        """
        self.log_written(lambda files: (files / name).write_text(table))
        self.set_tags({MLFLOW_LOGGED_ARTIFACTS: json.dumps([{"path": name, "type": "table"}])})

    def log_model_folder(self, folder: Path) -> None:
        """Log a finished model folder, from where ``Registry.register`` takes it."""
        copied = {"dirs_exist_ok": True, "copy_function": _link_or_copy}
        self.log_written(lambda files: shutil.copytree(folder, files, **copied), GENERATOR_FOLDER)  # type: ignore[arg-type]

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._record("", "tags", dict(tags))

    def describe(self, text: str) -> None:
        """Set the description of the run, Markdown."""
        self.set_tags({MLFLOW_RUN_NOTE: text})

    def log_written(self, write: Callable[[Path], object], folder: str = "") -> None:
        """Log the files that ``write`` puts into the folder it gets."""
        self._record("", "files", {"folder": folder}, write)


def at_once(delivery: Delivery) -> Callable[..., None]:
    """Where a run of a later step records: straight in MLflow, with its errors."""

    def record(
        id: str, kind: str, payload: dict[str, Any], write: Write | None = None, expendable: bool = False
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="kintsugi-") as scratch:
            if write:
                write(Path(scratch))
            try:
                delivery.send([Entry(0, int(time.time() * 1000), id, kind, payload, Path(scratch) if write else None)])
            except Refused as error:
                raise TrackingError(f"MLflow refuses a logged {kind}: {error}") from error

    return record


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
