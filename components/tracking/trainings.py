"""Trainings that MLflow holds, whoever ran them: found by what they trained, and what they left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.entities import Run as StoredRun

from components.config import Settings
from components.tracking.client import GENERATOR_FOLDER, connect
from components.tracking.delivery import COMPLETE

_MOST = 50  # that are looked at, the newest


@dataclass(frozen=True)
class Training:
    """One training, and where its generator is."""

    run_id: str
    name: str  # of the run
    steps: int
    dataset: str  # digest
    image_size: int  # of the pictures it was trained on; 0 where MLflow does not say
    source: str  # the artifact URI of its generator
    tracking_uri: str

    def download(self) -> Path:
        """A local copy of the generator's folder; the caller only reads it. Raises what MLflow raises."""
        return Path(download_artifacts(artifact_uri=self.source, tracking_uri=self.tracking_uri))


def trainings_of(settings: Settings, model: str) -> list[Training]:
    """Trainings of a kind of generator (``train_model``) that MLflow has all of, newest first."""
    client = connect(settings)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"params.`hp.model` = '{model}' and tags.`{COMPLETE}` = 'true'"
    found = client.search_runs(experiments, wanted, max_results=_MOST, order_by=["attributes.start_time DESC"])
    return [_training(run, settings.mlflow_uri) for run in found]


def _training(run: StoredRun, tracking_uri: str) -> Training:
    datasets = [given.dataset for given in run.inputs.dataset_inputs] if run.inputs else []
    facts = json.loads(datasets[0].profile or "{}") if datasets else {}
    return Training(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        steps=int(run.data.params.get("hp.steps", 0)),
        dataset=run.data.tags.get("dataset", ""),
        image_size=int(facts.get("image_size", 0)),
        source=f"{run.info.artifact_uri}/{GENERATOR_FOLDER}",
        tracking_uri=tracking_uri,
    )
