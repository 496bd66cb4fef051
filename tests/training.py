"""The train step as tests call it."""

from __future__ import annotations

from pathlib import Path

from components.config import PipelineConfig, Settings
from components.manifest import read_manifest
from components.tracking import open_run
from components.train import train


def train_model(config: PipelineConfig, dataset: Path, folder: Path, settings: Settings, name: str = "model") -> Path:
    """Train on a dataset whose card lies beside it; returns the model folder, ``folder/name``, beside its report."""
    model, card = folder / name, dataset.with_name("card.html")
    train(config.train, config.run, dataset, card, model, folder / f"{name}.html", settings)
    return model


def run_of(model: Path, settings: Settings) -> str:
    """MLflow's id of the run that trained a model folder, also where the training ended before MLflow answered."""
    facts = read_manifest(model, "model").facts
    return open_run(settings, facts["run_id"], facts["run_uid"]).id
