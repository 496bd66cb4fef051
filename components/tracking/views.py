"""A saved view in each of our experiments: which model repairs better, by how much, and what the gate said of it.

MLflow's table of runs shows none of that by itself. A saved view is a tag of the experiment, as MLflow's pages write
and read it since 3.17: JSON with a name, two times and a state, which says what columns there are, in which order and
how wide. That is no interface that MLflow promises. Where another version reads something else, a link to the view
opens the runs with MLflow's own columns, and the view is missing from the list of views; nothing breaks.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage

from components.config import Settings
from components.tracking.client import MODEL_TRAINING, connect, impatient, web_pages

_KEY = "kintsugi"
_TAG = f"mlflow.sharedViewState.{_KEY}"
_MADE = 1795737600000  # when this version of the view was made, milliseconds since 1970; a changed view is made later
_RUN_NAME, _CREATED, _VERDICT = "attributes.`Run Name`", "runDateAndNestInfo", "tags.`verdict`"
_WIDTHS = {
    _RUN_NAME: 305,
    _CREATED: 130,
    _VERDICT: 230,
    "metrics.`test/ssim`": 95,
    "metrics.`champion/ssim`": 120,
    "metrics.`biharmonic/ssim`": 125,
    "metrics.`test/hole_mse`": 115,
    "metrics.`champion/hole_mse`": 150,
    "params.`hp.model`": 120,
    "params.`hp.steps`": 85,
    "attributes.`Models`": 170,
}
"""The columns and their widths in pixels; MLflow always shows the first two, and after the last how long it took."""


def keep_view(client: MlflowClient, experiment_id: str) -> None:
    """Save the view in an experiment that has none, or an older one of ours.

    Nothing is raised where that fails: the runs are the same without it, and the next one tries again.
    """
    with suppress(Exception):  # MLflow raises almost anything when it is away
        _save(client, client.get_experiment(experiment_id))


def runs_page(settings: Settings, name: str, pages: str = "") -> str:
    """The address of an experiment's runs in that view, which is made where it is missing.

    ``pages`` is where MLflow's web pages begin, where no server is set. Where there is no such experiment yet, or no
    view to be had of MLflow: the list of experiments.
    """
    pages = pages or web_pages(settings)
    everything = f"{pages}/experiments?{MODEL_TRAINING}"
    if not settings.tracking_uri and not (settings.state / "mlflow.db").exists():
        return everything
    with suppress(Exception), impatient():
        client = connect(settings)
        experiment = client.get_experiment_by_name(name)
        if experiment and experiment.lifecycle_stage == LifecycleStage.ACTIVE:
            _save(client, experiment)
            return f"{pages}/experiments/{experiment.experiment_id}/runs?viewStateShareKey={_KEY}&{MODEL_TRAINING}"
    return everything


def _save(client: MlflowClient, experiment: Experiment) -> None:
    if _time_of(experiment.tags.get(_TAG, "")) < _MADE:
        client.set_experiment_tag(experiment.experiment_id, _TAG, _view())


def _view() -> str:
    columns = list(_WIDTHS)
    state: dict[str, Any] = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": [column for column in columns if column not in (_RUN_NAME, _CREATED)],
        "columnOrder": columns,
        "columnWidths": _WIDTHS,
    }
    view = {"name": "Which repairs better", "createdAt": _MADE, "updatedAt": _MADE, "state": json.dumps(state)}
    return json.dumps(view)


def _time_of(view: str) -> int:
    """When a view was saved last, by us or by somebody who changed it in MLflow; 0 for none, and for no view."""
    try:
        return int(json.loads(view)["updatedAt"])
    except (ValueError, KeyError, TypeError):
        return 0
