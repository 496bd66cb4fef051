"""The way to an MLflow server or store."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient

from components.config import Settings

GENERATOR_FOLDER = "generator"
MODEL_TRAINING = "workflowType=machine_learning"
"""The query of MLflow's pages that keeps their menus on runs and models; without it they are for language models."""
_SQLITE = "sqlite:///"
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""Seconds and repeats. A journal repeats by itself, and MLflow's own repeats stall a call for minutes."""


class TrackingError(ValueError):
    """A run is not in MLflow, or not all of it; the message says where it waits."""


def connect(settings: Settings) -> MlflowClient:
    """A client of the server that the settings name, else of the sqlite store in the state folder."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes
    if not settings.tracking_uri:
        _make_store(settings)
    return MlflowClient(settings.mlflow_uri)


def address(settings: Settings) -> str:
    """MLflow's tracking URI without a password."""
    return re.sub("(?<=://)[^/@]*@", "", settings.mlflow_uri)


def web_pages(settings: Settings) -> str:
    """Where MLflow's web pages begin, as in ``http://mlflow:5000/#``; ``""`` where MLflow is no server."""
    return f"{address(settings).rstrip('/')}/#" if settings.mlflow_uri.startswith(("http://", "https://")) else ""


@contextmanager
def impatient() -> Iterator[None]:
    """Let MLflow's client give up soon, unless the user chose otherwise; its settings are the process's."""
    chosen = {name: value for name, value in _IMPATIENT.items() if name not in os.environ}
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name in chosen:
            os.environ.pop(name, None)


def _make_store(settings: Settings) -> None:
    """Make the sqlite store beside its place, and rename it: MLflow cannot open one that was half made."""
    settings.make_state()
    store = Path(settings.mlflow_uri.removeprefix(_SQLITE))
    if store.exists():
        return
    with FileLock(store.with_suffix(".lock")):
        if not store.exists():
            for left in store.parent.glob(f"{store.stem}-*.partial"):
                left.unlink()
            partial = store.with_name(f"{store.stem}-{os.getpid()}.partial")
            MlflowClient(f"{_SQLITE}{partial}").search_experiments(max_results=1)
            partial.rename(store)
