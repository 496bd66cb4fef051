"""MLflow: the record of runs and the registry of models. The only part that imports mlflow.

A training logs through a journal on disk (``start_run``), so that MLflow can be slow or away; later
steps log at once (``open_run``); ``sync`` delivers what journals still hold.
"""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from components.tracking.client import GENERATOR_FOLDER, TrackingError, impatient
from components.tracking.ledger import Entry as LedgerEntry
from components.tracking.ledger import HistoryError
from components.tracking.logged import Subject, logged_model
from components.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from components.tracking.run import Run
from components.tracking.runs import open_run, run_page, start_run, sync
from components.tracking.trainings import Training, trainings_of
from components.tracking.versions import RegistryError, Version, bento_folder
from components.tracking.views import runs_page

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "GENERATOR_FOLDER",
    "PREVIOUS",
    "HistoryError",
    "LedgerEntry",
    "Registry",
    "RegistryError",
    "Run",
    "Subject",
    "TrackingError",
    "Training",
    "Version",
    "bento_folder",
    "impatient",
    "logged_model",
    "open_run",
    "run_page",
    "runs_page",
    "start_run",
    "sync",
    "trainings_of",
]
