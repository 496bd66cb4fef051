"""MLflow: the record of runs and the registry of models. The only file that imports mlflow.

A model version carries tags (``digest``, ``dataset``, ``code``, ``scores``, ``bento``, ``promoted_at``)
and three aliases point at versions: ``challenger``, ``champion`` and ``previous``.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.config import RunConfig, Settings, TrainConfig
from components.inpainting.images import Bytes
from components.manifest import Manifest

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
GENERATOR_FOLDER = "generator"
_HYPERPARAMETERS = ("model", "steps", "batch_size", "learning_rate", "adversarial_weight", "seed")
"""Few, because MLflow heads every picture of its image grid with all of them."""


class RegistryError(ValueError):
    """The registry does not hold what was asked for, or changed meanwhile."""


class Run:
    """One MLflow run, by its id; steps of the same pipeline run write into the same one."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.id = client, run_id

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics of one training step in one request."""
        now = int(time.time() * 1000)
        self._client.log_batch(self.id, metrics=[Metric(key, value, now, step) for key, value in values.items()])

    def log_image(self, picture: Bytes, key: str, step: int) -> None:
        """Log a uint8 ``H,W,3`` picture under a key that is stable across runs and steps."""
        self._client.log_image(self.id, picture, key=key, step=step, synchronous=True)

    def log_file(self, path: Path, folder: str = "") -> None:
        """Log one file as an artifact."""
        self._client.log_artifact(self.id, str(path), folder or None)

    def log_page(self, path: Path, name: str) -> None:
        """Log an HTML page under a name that MLflow shows as one; Kubeflow's own paths have no suffix."""
        self._client.log_text(self.id, path.read_text(), name)

    def log_model_folder(self, folder: Path) -> None:
        """Log a finished model folder, from where ``Registry.register`` takes it."""
        self._client.log_artifacts(self.id, str(folder), GENERATOR_FOLDER)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        for key, value in tags.items():
            self._client.set_tag(self.id, key, value)

    @property
    def artifact_uri(self) -> str:
        """Where the run's artifacts are."""
        return str(self._client.get_run(self.id).info.artifact_uri)


@dataclass(frozen=True)
class Version:
    """One registered model version."""

    name: str
    number: str
    run_id: str
    tags: dict[str, str]

    @property
    def scores(self) -> dict[str, float]:
        """Overall test scores at registration: ``ssim``, ``psnr``, ``hole_mse``."""
        scores: dict[str, float] = json.loads(self.tags.get("scores", "{}"))
        return scores


@contextmanager
def start_run(settings: Settings, run: RunConfig, train: TrainConfig, dataset: Manifest) -> Iterator[Run]:
    """Open the MLflow run of a training, log its parameters and dataset, and close it with its outcome.

    Where the environment names a run (``MLFLOW_RUN_ID``, as Kubeflow injects it) that one is resumed,
    and left open for whoever started it.
    """
    client = _client(settings)
    injected = os.environ.get("MLFLOW_RUN_ID")
    run_id = injected or _create_run(client, settings, run)
    status = "FAILED"
    try:
        parameters = [Param(f"hp.{name}", str(getattr(train, name))) for name in _HYPERPARAMETERS]
        client.log_batch(run_id, params=parameters)
        everything = {"train": train.model_dump(), "run": run.model_dump(), "dataset": dataset.model_dump()}
        client.log_dict(run_id, everything, "parameters.json")
        _log_dataset(client, run_id, dataset)
        yield Run(client, run_id)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if not injected:
            client.set_terminated(run_id, status)


def open_run(settings: Settings, run_id: str) -> Run:
    """The run that an earlier step started, to log more into it."""
    return Run(_client(settings), run_id)


class Registry:
    """The versions of one registered model."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._client, self.name = _client(settings), name

    def register(self, run_id: str, tags: Mapping[str, str]) -> Version:
        """Register the generator that a run logged, and point ``challenger`` at it.

        A version with the same ``digest`` tag and run is not registered twice.
        """
        found = [v for v in self.versions() if v.run_id == run_id and v.tags.get("digest") == tags["digest"]]
        version = found[0] if found else self._create(run_id, tags)
        self._client.set_registered_model_alias(self.name, CHALLENGER, version.number)
        return version

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        found = self._client.search_model_versions(f"name = '{self.name}'")
        return sorted((_version(v) for v in found), key=lambda v: -int(v.number))

    def aliased(self, alias: str) -> Version | None:
        """The version an alias points at, or ``None``."""
        try:
            return _version(self._client.get_model_version_by_alias(self.name, alias))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def aliases(self) -> dict[str, str]:
        """Every alias and the version number it points at."""
        try:
            aliases = self._client.get_registered_model(self.name).aliases
            return {alias: str(number) for alias, number in aliases.items()}  # the sqlite store gives integers
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    def get(self, number: str) -> Version:
        """One version. Raises ``RegistryError`` naming those there are."""
        versions = self.versions()
        for version in versions:
            if version.number == number:
                return version
        known = ", ".join(v.number for v in versions) or "none"
        raise RegistryError(f"model {self.name!r} has no version {number}; it has {known}")

    def tag(self, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, number, key, value)

    def promote(self, number: str, expected_champion: str) -> Version:
        """Move ``champion`` to a version, and ``previous`` to the one it replaces.

        ``expected_champion`` is the version number the decision was made against, ``""`` for none;
        raises ``RegistryError`` when another one is champion by now. Promoting the champion is a no-op.
        """
        current = self.aliases().get(CHAMPION, "")
        if current == number:
            return self.get(number)
        if current != expected_champion:
            raise RegistryError(
                f"version {number} was compared with {_named(expected_champion)}, but by now {_named(current)} "
                "is champion; run the pipeline again to compare with that one"
            )
        promoted = self.get(number)
        self.tag(number, {"promoted_at": datetime.now(UTC).isoformat(timespec="seconds"), "replaced": current})
        if current:
            self._client.set_registered_model_alias(self.name, PREVIOUS, current)
        self._client.set_registered_model_alias(self.name, CHAMPION, number)
        if self.aliases().get(CHALLENGER) == number:
            self._client.delete_registered_model_alias(self.name, CHALLENGER)
        return promoted

    def download(self, version: Version, path: str = GENERATOR_FOLDER) -> Path:
        """A local copy of an artifact of the version's run; the caller only reads it."""
        uri = f"{Run(self._client, version.run_id).artifact_uri}/{path}"
        try:
            return Path(download_artifacts(artifact_uri=uri, tracking_uri=self._client.tracking_uri))
        except (MlflowException, OSError) as error:
            raise RegistryError(f"version {version.number} of {self.name!r} has lost its {path}: {error}") from None

    def _create(self, run_id: str, tags: Mapping[str, str]) -> Version:
        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{Run(self._client, run_id).artifact_uri}/{GENERATOR_FOLDER}"
        return _version(self._client.create_model_version(self.name, source, run_id, tags=dict(tags)))


def _client(settings: Settings) -> MlflowClient:
    if not settings.tracking_uri:
        settings.make_state()
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes
    return MlflowClient(settings.mlflow_uri)


def _create_run(client: MlflowClient, settings: Settings, run: RunConfig) -> str:
    experiment = client.get_experiment_by_name(run.experiment)
    if experiment is None:
        location = None if settings.tracking_uri else (settings.state / "mlartifacts").as_uri()
        experiment_id = client.create_experiment(run.experiment, artifact_location=location)
    else:
        experiment_id = experiment.experiment_id
    if not settings.tracking_uri:
        _close_dead_runs(client, experiment_id)
    name = f"{run.name}-{datetime.now():%Y%m%d-%H%M%S}"
    return str(client.create_run(experiment_id, run_name=name).info.run_id)


def _close_dead_runs(client: MlflowClient, experiment_id: str) -> None:
    """One run at a time works in a state folder, so what still says RUNNING was killed."""
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")


def _log_dataset(client: MlflowClient, run_id: str, dataset: Manifest) -> None:
    source = json.dumps({"source": dataset.facts["source"], "digest": dataset.digest})
    entity = Dataset(
        dataset.facts["source"], dataset.digest[:32], "kintsugi", source, profile=json.dumps(dataset.facts)
    )
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])
    client.set_tag(run_id, "dataset", dataset.digest)


def _version(version: ModelVersion) -> Version:
    return Version(version.name, str(version.version), version.run_id or "", dict(version.tags))


def _named(number: str) -> str:
    return f"version {number}" if number else "no model"
