"""The saved view of runs in an experiment, as tags; what MLflow makes of it is in ``test_mlflow_pages``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from components.config import RunConfig, Settings, TrainConfig
from components.inpainting.dataset import PreparedDataset
from components.tracking import runs_page, start_run

TAG = "mlflow.sharedViewState.kintsugi"
PAGES = "http://127.0.0.1:5000/#"


def view_of(settings: Settings, name: str = "kintsugi") -> dict[str, Any]:
    experiment = MlflowClient(settings.mlflow_uri).get_experiment_by_name(name)
    assert experiment is not None
    view: dict[str, Any] = json.loads(experiment.tags[TAG])
    return view


def train(settings: Settings, dataset: Path, experiment: str = "kintsugi") -> None:
    manifest = PreparedDataset.open(dataset).manifest
    with start_run(settings, RunConfig(experiment=experiment), TrainConfig(), manifest):
        pass


def test_a_training_saves_the_view_and_leaves_a_newer_one_alone(settings: Settings, dataset: Path) -> None:
    train(settings, dataset)
    view = view_of(settings)
    assert view["name"] == "Which repairs better"
    assert json.loads(view["state"])["selectedColumns"][:2] == ["tags.`verdict`", "metrics.`test/ssim`"]
    client = MlflowClient(settings.mlflow_uri)
    newer, older = (view | {"name": "mine", "updatedAt": view["updatedAt"] + change} for change in (1, -1))
    client.set_experiment_tag("1", TAG, json.dumps(newer))
    train(settings, dataset)
    assert view_of(settings) == newer
    for replaced in (json.dumps(older), "{}", "no view"):
        client.set_experiment_tag("1", TAG, replaced)
        train(settings, dataset)
        assert view_of(settings) == view


def test_the_page_of_an_experiments_runs_is_the_view_where_there_is_one(settings: Settings, dataset: Path) -> None:
    experiments = f"{PAGES}/experiments?workflowType=machine_learning"
    assert runs_page(settings, "kintsugi", PAGES) == experiments
    assert not settings.state.exists()
    train(settings, dataset, "others")
    assert runs_page(settings, "kintsugi", PAGES) == experiments
    client = MlflowClient(settings.mlflow_uri)
    made = client.create_experiment("kintsugi")  # as by hand, or by a Kintsugi of before
    expected = f"{PAGES}/experiments/{made}/runs?viewStateShareKey=kintsugi&workflowType=machine_learning"
    assert runs_page(settings, "kintsugi", PAGES) == expected
    assert view_of(settings) == view_of(settings, "others")
    client.delete_experiment(made)
    assert runs_page(settings, "kintsugi", PAGES) == experiments
