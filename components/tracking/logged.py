"""A run's generator as a logged model of MLflow, which carries the scores that were measured of it, and on what."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from components.config import Settings
from components.manifest import Manifest
from components.tracking.client import connect
from components.tracking.ledger import insist

_DIGEST = "digest"
_DATASET_DIGEST_LENGTH = 32  # of MLflow's database


@dataclass(frozen=True)
class Subject:
    """What metrics are of: a logged model, and the dataset that it was measured on."""

    model_id: str
    dataset_name: str
    dataset_digest: str

    @classmethod
    def of(cls, model_id: str, source: str, digest: str) -> Subject:
        """``source`` and ``digest`` as the dataset's manifest has them."""
        return cls(model_id, source, short_digest(digest))


def short_digest(digest: str) -> str:
    """A dataset's digest as MLflow keeps it."""
    return digest[:_DATASET_DIGEST_LENGTH]


def logged_model(settings: Settings, run_id: str, model: Manifest) -> str:
    """The id of the logged model for a run's generator, which is made where there is none of its digest yet.

    The generator's files stay where the run has them.
    """
    client = connect(settings)
    experiment = client.get_run(run_id).info.experiment_id
    for found in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if found.tags.get(_DIGEST) == model.digest:
            return str(found.model_id)
    steps, kind = str(model.facts["steps"]), str(model.facts["model"])
    made = client.create_logged_model(
        experiment, kind, source_run_id=run_id, tags={_DIGEST: model.digest}, params={"steps": steps}, model_type=kind
    )
    client.finalize_logged_model(made.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return str(made.model_id)


def link_version(client: MlflowClient, model_id: str, name: str, number: str) -> None:
    """Let MLflow's pages show a registered version beside the logged model that it is.

    The tag is what MLflow's own registration sets and its pages read. ``create_model_version(model_id=...)`` will not
    do: a server that serves artifacts takes it for files of the logged model alone, and ours are the run's; a store
    by itself drops it, since its versions have no such column (``ModelVersion.model_id`` is ``None`` for good).
    """
    version = {"name": name, "version": number}
    known = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if version not in known:
        insist(client.set_logged_model_tags, model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([*known, version])})
