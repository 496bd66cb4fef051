"""What a journal holds, told to MLflow. Every call may be repeated: none leaves anything twice.

MLflow's store keeps one metric of the same key, step, time and value, parameters and tags overwrite
themselves, and files get names that follow from their entry.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.tracking.multimedia import compress_image_size
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from components.config import Settings
from components.journal import Entry, Refused
from components.manifest import write_file
from components.tracking.client import connect
from components.tracking.logged import short_digest
from components.tracking.views import keep_view

UID, COMPLETE = "kintsugi.uid", "kintsugi.complete"
PICTURE = "picture.npy"
_IDENTITY, _RUN_ID = "run.json", "run_id"
_MAX_METRICS = 1000  # that one request may carry
_FAST = 1  # of zlib's levels: the training wants the cores, and a tenth more bytes is little


class Identity(BaseModel):
    """What makes a run the same one, whenever and by whomever its journal is delivered."""

    model_config = ConfigDict(frozen=True)

    uid: str
    experiment: str
    name: str
    started: int  # milliseconds since 1970
    injected: str = ""  # the run's id where the environment names one; whoever made it closes it
    place: str = ""  # where the training, interrupted, looks for its run again

    @classmethod
    def read(cls, folder: Path) -> Identity | None:
        """The identity in a journal's folder or a training's place, ``None`` where there is none."""
        try:
            return cls.model_validate_json((folder / _IDENTITY).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, folder: Path) -> None:
        """Keep it in a folder."""
        write_file(folder / _IDENTITY, self.model_dump_json())


class Delivery:
    """One run in MLflow, found or made when the first entry is sent. For one thread at a time."""

    def __init__(
        self, settings: Settings, identity: Identity, journal: Path | None = None, *, alone: bool = False
    ) -> None:
        """``journal`` is the folder that remembers the run's id.

        A training is ``alone`` in its state folder, so what still says RUNNING there was killed.
        """
        self.settings, self.identity, self._journal, self._alone = settings, identity, journal, alone
        self.run_id = identity.injected or self._remembered()
        self._connection: MlflowClient | None = None
        self._has_pictures = False

    def send(self, entries: list[Entry]) -> None:
        """Deliver entries of one kind. Raises ``Refused`` for what MLflow will never take."""
        client = self.connect()
        with self._errors():
            match entries[0].kind:
                case "metrics":
                    self._metrics(client, entries)
                case "image":
                    self._image(client, entries[0])
                case kind:
                    getattr(self, f"_{kind}")(client, entries[0])

    def connect(self) -> MlflowClient:
        """A client, once there is a run."""
        if self._connection is None:
            self._connection = connect(self.settings)
        if not self.run_id:
            self.run_id = self._find_or_create(self._connection)
            if self._journal and self._journal.exists():
                write_file(self._journal / _RUN_ID, self.run_id)
        return self._connection

    def close_as_killed(self) -> None:
        """End a run whose training died without a word."""
        client = self.connect()
        if not self.identity.injected and client.get_run(self.run_id).info.status == "RUNNING":
            client.set_terminated(self.run_id, "KILLED")

    def _remembered(self) -> str:
        path = self._journal / _RUN_ID if self._journal else None
        return path.read_text() if path and path.exists() else ""

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            if error.error_code == "INVALID_PARAMETER_VALUE":
                raise Refused(str(error)) from error
            if error.error_code == "RESOURCE_DOES_NOT_EXIST" and not self.identity.injected:
                self.run_id = ""  # somebody removed it, so the rest goes into another
            raise

    def _find_or_create(self, client: MlflowClient) -> str:
        experiment = self._experiment(client)
        if self._alone and not self.settings.tracking_uri:
            _close_dead_runs(client, experiment, self.identity.uid)
        found = find_runs(client, self.identity.uid, [experiment])
        if found:
            return str(found[0].info.run_id)
        made = client.create_run(experiment, self.identity.started, {UID: self.identity.uid}, self.identity.name)
        return str(made.info.run_id)

    def _experiment(self, client: MlflowClient) -> str:
        name = self.identity.experiment
        local = not self.settings.tracking_uri
        location = (self.settings.state / "mlartifacts").as_uri() if local else None
        if client.get_experiment_by_name(name) is None:
            try:
                client.create_experiment(name, artifact_location=location)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        found = client.get_experiment_by_name(name)
        assert found is not None
        return str(found.experiment_id)

    def _start(self, client: MlflowClient, entry: Entry) -> None:
        client.set_tag(self.run_id, UID, self.identity.uid)
        client.set_tag(self.run_id, COMPLETE, "false")
        run = client.get_run(self.run_id).info
        keep_view(client, run.experiment_id)
        if self.identity.injected or run.status == "RUNNING":
            return  # a server that is slow may do what it was asked for when the run has long ended
        client.update_run(self.run_id, status="RUNNING")

    def _end(self, client: MlflowClient, entry: Entry) -> None:
        client.set_tag(self.run_id, COMPLETE, "true")
        if not self.identity.injected:
            self._drop_twins(client)
            client.set_terminated(self.run_id, entry.payload["status"], entry.time)

    def _drop_twins(self, client: MlflowClient) -> None:
        """A server that hung can make the run long after the client asked again, and so twice."""
        experiment = client.get_run(self.run_id).info.experiment_id
        for run in find_runs(client, self.identity.uid, [experiment]):
            if run.info.run_id != self.run_id:
                client.delete_run(run.info.run_id)

    def _metrics(self, client: MlflowClient, entries: list[Entry]) -> None:
        metrics = [
            Metric(name, value, entry.time, entry.payload["step"], **entry.payload.get("about", {}))
            for entry in entries
            for name, value in entry.payload["values"].items()
        ]
        for first in range(0, len(metrics), _MAX_METRICS):
            client.log_batch(self.run_id, metrics=metrics[first : first + _MAX_METRICS])

    def _parameters(self, client: MlflowClient, entry: Entry) -> None:
        client.log_batch(self.run_id, params=[Param(name, value) for name, value in entry.payload.items()])

    def _tags(self, client: MlflowClient, entry: Entry) -> None:
        for name, value in entry.payload.items():
            client.set_tag(self.run_id, name, value)

    def _dataset(self, client: MlflowClient, entry: Entry) -> None:
        source, digest = entry.payload["source"], entry.payload["digest"]
        origin = json.dumps({"source": source, "digest": digest})
        profile = json.dumps(entry.payload["facts"])
        dataset = Dataset(source, short_digest(digest), "kintsugi", origin, profile=profile)
        client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        client.set_tag(self.run_id, "dataset", digest)

    def _image(self, client: MlflowClient, entry: Entry) -> None:
        """File a picture and its small twin under the names that MLflow's image grid reads."""
        if _lacks_files(entry):
            return
        assert entry.files is not None
        picture = Image.fromarray(np.load(entry.files / PICTURE, allow_pickle=False))
        key, step = entry.payload["key"].replace("/", "~"), entry.payload["step"]
        unique = uuid.uuid5(uuid.UUID(self.identity.uid), entry.id)
        name = f"{key}+step+{step}+timestamp+{entry.time}+{unique}"
        with tempfile.TemporaryDirectory(prefix="kintsugi-") as scratch:
            picture.save(Path(scratch) / f"{name}.png", compress_level=_FAST)
            compress_image_size(picture).save(Path(scratch) / f"{name}+compressed.webp", method=0)
            client.log_artifacts(self.run_id, scratch, "images")
        if not self._has_pictures:
            client.set_tag(self.run_id, MLFLOW_LOGGED_IMAGES, "True")
            self._has_pictures = True

    def _files(self, client: MlflowClient, entry: Entry) -> None:
        if not _lacks_files(entry):
            client.log_artifacts(self.run_id, str(entry.files), entry.payload["folder"] or None)


def find_runs(client: MlflowClient, uid: str, experiments: list[str] | None = None) -> list[StoredRun]:
    """The runs that carry a uid: none, one, or more where a server made one late."""
    if experiments is None:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`{UID}` = '{uid}'"))


def _close_dead_runs(client: MlflowClient, experiment: str, uid: str) -> None:
    """One run at a time works in a state folder, so what still says RUNNING was killed."""
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        if run.data.tags.get(UID) != uid:
            client.set_terminated(run.info.run_id, "KILLED")


def _lacks_files(entry: Entry) -> bool:
    """Files are dropped after delivery alone, so what lacks them was delivered before."""
    return entry.files is None or not entry.files.exists()
