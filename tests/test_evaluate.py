from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from skimage.metrics import structural_similarity

from components.config import PipelineConfig, ServeConfig, Settings
from components.evaluate import evaluate
from components.evaluate.repairing import Contest
from components.gate import gate
from components.inpainting.classical import repair
from components.inpainting.dataset import PreparedDataset
from components.inpainting.export import ENGINE
from components.inpainting.networks import build_generator
from components.inpainting.scores import (
    BIHARMONIC,
    CANDIDATE,
    CHAMPION,
    CHARTS,
    DAMAGED,
    LABELS,
    PAPER,
    Evaluation,
    Score,
)
from components.manifest import read_manifest
from components.promote import promote
from components.register import register
from components.tracking import Registry, RegistryError
from components.train import train


def trained_and_evaluated(settings: Settings, dataset: Path, folder: Path, steps: int) -> Evaluation:
    config = PipelineConfig.from_flat({"train_steps": steps, "train_batch_size": 4})
    train(config.train, config.run, dataset, dataset.with_name("card.html"), folder / "model", settings)
    evaluate(config.serve, dataset, folder / "model", folder / "evaluation", folder / "report.html", settings)
    return Evaluation.model_validate_json((folder / "evaluation" / "scores.json").read_bytes())


@dataclass(frozen=True)
class Judged:
    """An untrained model, evaluated and refused: its state folder, the folder of its files, its scores."""

    settings: Settings
    folder: Path
    scores: Evaluation


@pytest.fixture(scope="module")
def untrained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("untrained")
    settings = Settings(home=folder / "state", MLFLOW_TRACKING_URI="")
    scores = trained_and_evaluated(settings, dataset, folder, steps=0)
    gate(PipelineConfig().gate, folder / "evaluation", folder / "decision", folder / "verdict.html", settings)
    return Judged(settings, folder, scores)


def admit(settings: Settings, folder: Path) -> None:
    """What the gate would write for a model that passes, at the scores the evaluation found."""
    lenient = PipelineConfig.from_flat({"gate_min_ssim": -1.0, "gate_max_mse": 1.0}).gate
    gate(lenient, folder / "evaluation", folder / "decision", folder / "verdict.html", settings)
    decision = folder / "decision" / "decision.json"
    decision.write_text(json.dumps(json.loads(decision.read_text()) | {"admitted": True}))


def test_scores_are_those_of_scikit_image(untrained: Judged, dataset: Path) -> None:
    scores = untrained.scores
    test = PreparedDataset.open(dataset).split("test")
    expected = [
        structural_similarity(repair("biharmonic", damaged, mask), truth, channel_axis=-1)
        for truth, damaged, mask in zip(test.images, test.damaged("box"), test.masks("box"), strict=True)
    ]
    assert scores.methods[BIHARMONIC].families["box"].ssim == pytest.approx(np.mean(expected), abs=1e-9)
    fast = [DAMAGED, "mean", "telea", "navier_stokes", "harmonic", BIHARMONIC, CANDIDATE]
    assert list(scores.methods) == fast
    assert list(scores.beside) == [name for name in LABELS if name not in (PAPER, CHAMPION)]
    assert "MLflow holds no finished training of it" in scores.paper
    families = scores.methods[CANDIDATE].families
    assert scores.methods[CANDIDATE].overall.ssim == pytest.approx(np.mean([s.ssim for s in families.values()]))


def test_every_picture_family_and_method_has_a_row(untrained: Judged) -> None:
    scores = untrained.scores
    table = pd.read_parquet(untrained.folder / "evaluation" / "per_image.parquet")
    assert len(table) == 8 * 4 * 9  # fewer than slow methods repair
    known = scores.methods[CANDIDATE].families["text"].known
    assert known.keys() == set(Score.model_fields) - {"mask_f1", "mask_iou"}
    means = table[(table.method == CANDIDATE) & (table.family == "text")][[*known]].mean()
    assert means.to_dict() == pytest.approx(known)


def test_mlflow_shows_the_scores_of_every_picture_as_a_table(
    untrained: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", untrained.settings.mlflow_uri)  # its client searches there
    client = MlflowClient(untrained.settings.mlflow_uri)
    (experiment,) = (e.experiment_id for e in client.search_experiments() if e.name == "kintsugi")
    shown = client.load_table(experiment, "per_image.json", run_ids=[untrained.scores.run_id])
    kept = pd.read_parquet(untrained.folder / "evaluation" / "per_image.parquet")
    assert len(shown) == len(kept)
    assert shown["ssim"].to_numpy() == pytest.approx(kept["ssim"].to_numpy())
    assert list(shown["method"]) == list(kept["method"])


def test_a_blind_model_is_judged_by_what_it_finds_too(dataset: Path) -> None:
    torch.manual_seed(0)
    generators = {CANDIDATE: build_generator("blind_unet").eval(), CHAMPION: build_generator("residual_unet").eval()}
    found = Contest(generators).find(PreparedDataset.open(dataset).split("test"), "text")
    assert found.keys() == {CANDIDATE}
    assert found[CANDIDATE].keys() == {"mask_f1", "mask_iou"}
    assert all(
        len(scores) == 8 and (scores >= 0).all() and (scores < 0.5).all() for scores in found[CANDIDATE].values()
    )


def test_the_model_as_it_will_be_served_is_measured_and_kept(untrained: Judged) -> None:
    exported, engine = untrained.scores.exported, untrained.folder / "evaluation" / ENGINE
    assert exported is not None
    assert exported.megabytes == engine.stat().st_size / 1e6
    assert (exported.num_pictures, exported.image_size) == (8, 64)
    assert 0 < exported.milliseconds < 1e5


def test_champion_is_scored_again_and_an_equal_model_is_refused(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    serve = ServeConfig()
    first, second = tmp_path / "first", tmp_path / "second"
    trained_and_evaluated(settings, dataset, first, steps=2)
    admit(settings, first)
    version = register(serve, first / "model", first / "evaluation", first / "decision", "run-1", settings)
    promote(serve, version, first / "decision", settings)
    scores = trained_and_evaluated(settings, dataset, second, steps=2)
    assert scores.champion == version
    assert scores.methods[CHAMPION].model_dump_json() == scores.methods[CANDIDATE].model_dump_json()  # NaN is not NaN
    admitted = gate(
        PipelineConfig().gate, second / "evaluation", second / "decision", second / "verdict.html", settings
    )
    assert not admitted
    with pytest.raises(RegistryError, match="the gate refused this model"):
        register(serve, second / "model", second / "evaluation", second / "decision", "run-2", settings)
    assert len(Registry(settings, serve.model_name).versions()) == 1


def test_an_evaluation_of_another_model_registers_nothing(untrained: Judged, dataset: Path, tmp_path: Path) -> None:
    config = PipelineConfig.from_flat({"train_steps": 1, "train_batch_size": 4})
    train(
        config.train, config.run, dataset, dataset.with_name("card.html"), tmp_path / "model", untrained.settings
    )  # fmt: skip
    admitted = tmp_path / "admitted"
    shutil.copytree(untrained.folder / "evaluation", admitted / "evaluation")
    admit(untrained.settings, admitted)
    with pytest.raises(RegistryError, match="of another model"):
        register(
            ServeConfig(), tmp_path / "model", admitted / "evaluation", admitted / "decision", "run-1",
            untrained.settings,
        )  # fmt: skip


def test_the_reports_are_self_contained_and_lead_with_the_verdict(untrained: Judged) -> None:
    scores_only, verdict = ((untrained.folder / name).read_text() for name in ("report.html", "verdict.html"))
    assert "the verdict is in the report of the gate step" in scores_only
    assert (
        verdict.index("Refused.")
        < verdict.index("never trained")
        < verdict.index("What to do next")
        < verdict.index("SSIM of the whole picture")
    )
    for page in (scores_only, verdict):
        assert page.count("<svg") == len(CHARTS)
        assert all(caption in page for caption in CHARTS.values())
        assert "data:image/png" in page
        assert "http://" not in page
        assert "https://" not in page
        assert "<script" not in page


def test_manifests_say_what_was_made_from_what(untrained: Judged) -> None:
    model = read_manifest(untrained.folder / "model", "model")
    made_from = read_manifest(untrained.folder / "evaluation", "evaluation").made_from
    assert made_from == {"model": model.digest, "dataset": model.made_from["dataset"]}
