from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.metrics import structural_similarity

from components.config import PipelineConfig, ServeConfig, Settings
from components.evaluate import evaluate
from components.gate import gate
from components.inpainting.classical import repair
from components.inpainting.dataset import PreparedDataset
from components.inpainting.scores import BIHARMONIC, CANDIDATE, CHAMPION, DAMAGED, LABELS, Evaluation, Score
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


def admit(settings: Settings, folder: Path) -> None:
    """What the gate would write for a model that passes, at the scores the evaluation found."""
    lenient = PipelineConfig.from_flat({"gate_min_ssim": -1.0, "gate_max_mse": 1.0}).gate
    gate(lenient, folder / "evaluation", folder / "decision", folder / "verdict.html", settings)
    decision = folder / "decision" / "decision.json"
    decision.write_text(json.dumps(json.loads(decision.read_text()) | {"admitted": True}))


def test_scores_are_those_of_scikit_image(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    scores = trained_and_evaluated(settings, dataset, tmp_path, steps=0)
    test = PreparedDataset.open(dataset).split("test")
    expected = [
        structural_similarity(repair("biharmonic", damaged, mask), truth, channel_axis=-1)
        for truth, damaged, mask in zip(test.images, test.damaged("box"), test.masks("box"), strict=True)
    ]
    assert scores.methods[BIHARMONIC].families["box"].ssim == pytest.approx(np.mean(expected), abs=1e-9)
    fast = [DAMAGED, "mean", "telea", "navier_stokes", "harmonic", BIHARMONIC, CANDIDATE]
    assert list(scores.methods) == fast
    assert list(scores.beside) == [name for name in LABELS if name != CHAMPION]
    families = scores.methods[CANDIDATE].families
    assert scores.methods[CANDIDATE].overall.ssim == pytest.approx(np.mean([s.ssim for s in families.values()]))


def test_every_picture_family_and_method_has_a_row(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    scores = trained_and_evaluated(settings, dataset, tmp_path, steps=0)
    table = pd.read_parquet(tmp_path / "evaluation" / "per_image.parquet")
    assert len(table) == 8 * 4 * 9  # fewer than slow methods repair
    means = table[(table.method == CANDIDATE) & (table.family == "text")][[*Score.model_fields]].mean()
    assert means.to_dict() == pytest.approx(scores.methods[CANDIDATE].families["text"].model_dump())


def test_champion_is_scored_again_and_an_equal_model_is_refused(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    serve = ServeConfig()
    first, second = tmp_path / "first", tmp_path / "second"
    trained_and_evaluated(settings, dataset, first, steps=2)
    admit(settings, first)
    version = register(serve, first / "model", first / "evaluation", first / "decision", settings)
    promote(serve, version, first / "decision", settings)
    scores = trained_and_evaluated(settings, dataset, second, steps=2)
    assert scores.champion == version
    assert scores.methods[CHAMPION] == scores.methods[CANDIDATE]
    admitted = gate(
        PipelineConfig().gate, second / "evaluation", second / "decision", second / "verdict.html", settings
    )
    assert not admitted
    with pytest.raises(RegistryError, match="the gate refused this model"):
        register(serve, second / "model", second / "evaluation", second / "decision", settings)
    assert len(Registry(settings, serve.model_name).versions()) == 1


def test_an_evaluation_of_another_model_registers_nothing(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    for name, steps in (("one", 1), ("other", 0)):
        trained_and_evaluated(settings, dataset, tmp_path / name, steps=steps)
        admit(settings, tmp_path / name)
    one, other = tmp_path / "one", tmp_path / "other"
    with pytest.raises(RegistryError, match="of another model"):
        register(ServeConfig(), one / "model", other / "evaluation", other / "decision", settings)


def test_the_reports_are_self_contained_and_lead_with_the_verdict(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    trained_and_evaluated(settings, dataset, tmp_path, steps=0)
    gate(PipelineConfig().gate, tmp_path / "evaluation", tmp_path / "decision", tmp_path / "verdict.html", settings)
    scores_only, verdict = (tmp_path / "report.html").read_text(), (tmp_path / "verdict.html").read_text()
    assert "the verdict is in the report of the gate step" in scores_only
    assert verdict.index("Refused.") < verdict.index("never trained") < verdict.index("SSIM of the whole picture")
    for page in (scores_only, verdict):
        assert "data:image/png" in page
        assert "http://" not in page
        assert "https://" not in page
        assert "<script" not in page


def test_manifests_say_what_was_made_from_what(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    trained_and_evaluated(settings, dataset, tmp_path, steps=0)
    model = read_manifest(tmp_path / "model", "model")
    made_from = read_manifest(tmp_path / "evaluation", "evaluation").made_from
    assert made_from == {"model": model.digest, "dataset": model.made_from["dataset"]}
