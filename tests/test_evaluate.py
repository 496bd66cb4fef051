from __future__ import annotations

import hashlib
import html
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from skimage.metrics import structural_similarity

from components.config import PipelineConfig, RunConfig, ServeConfig, Settings, TrainConfig
from components.evaluate import evaluate
from components.evaluate.intervals import Bootstrap
from components.evaluate.paper import find_paper
from components.evaluate.repairing import Contest
from components.evaluate.scoring import beside, differences, method_scores, score_methods
from components.gate import decide, gate
from components.inpainting.classical import SLOW, repair
from components.inpainting.dataset import PreparedDataset
from components.inpainting.export import ENGINE
from components.inpainting.metrics import PSNR_OF_PERFECT
from components.inpainting.networks import CONFIG, WEIGHTS, build_generator, save_generator
from components.inpainting.scores import (
    BIHARMONIC,
    CANDIDATE,
    CHAMPION,
    CHARTS,
    DAMAGED,
    LABELS,
    PAPER,
    Decision,
    Evaluation,
    Score,
)
from components.manifest import Manifest, read_manifest
from components.register import register
from components.tracking import CHALLENGER, Registry, RegistryError, start_run
from tests.registered import SERVABLE
from tests.training import run_of, train_model


@dataclass(frozen=True)
class Judged:
    """A model that was not trained, evaluated and refused beside a champion that equals it and the paper's network."""

    settings: Settings
    folder: Path
    scores: Evaluation


@pytest.fixture(scope="module")
def untrained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("untrained")
    settings, serve = Settings(home=folder / "state", MLFLOW_TRACKING_URI=""), ServeConfig()
    for name, steps, parameters in (("paper", 1, {"train_model": PAPER}), ("model", 0, {})):
        config = PipelineConfig.from_flat({"train_steps": steps, "train_batch_size": 4, **parameters})
        train_model(config, dataset, folder, settings, name)
    registry = Registry(settings, serve.model_name)
    champion = registry.register(run_of(folder / "model", settings), {"digest": "c" * 64} | SERVABLE)
    registry.record(champion.number, {f"generator/{name}": folder / "model" / name for name in (CONFIG, WEIGHTS)})
    registry.promote(champion.number, "")
    evaluate(serve, dataset, folder / "model", folder / "evaluation", folder / "report.html", settings)
    gate(PipelineConfig().gate, folder / "evaluation", folder / "decision", folder / "verdict.html", settings)
    scores = Evaluation.model_validate_json((folder / "evaluation" / "scores.json").read_bytes())
    return Judged(settings, folder, scores)


def admitted(model: Judged, folder: Path, **changes: object) -> Path:
    """A copy of an evaluation, with changes, beside what the gate would write for a model that passes."""
    shutil.copytree(model.folder / "evaluation", folder / "evaluation")
    scores = folder / "evaluation" / "scores.json"
    scores.write_text(json.dumps(json.loads(scores.read_text()) | changes))
    lenient = PipelineConfig.from_flat({"gate_min_ssim": -1.0, "gate_max_mse": 1.0}).gate
    gate(lenient, folder / "evaluation", folder / "decision", folder / "verdict.html", model.settings)
    decision = folder / "decision" / "decision.json"
    decision.write_text(json.dumps(json.loads(decision.read_text()) | {"admitted": True}))
    return folder


def test_scores_are_those_of_scikit_image(untrained: Judged, dataset: Path) -> None:
    scores = untrained.scores
    test = PreparedDataset.open(dataset).split("test")
    expected = [
        structural_similarity(repair("biharmonic", damaged, mask), truth, channel_axis=-1)
        for truth, damaged, mask in zip(test.images, test.damaged("box"), test.masks("box"), strict=True)
    ]
    assert scores.methods[BIHARMONIC].families["box"].ssim == pytest.approx(np.mean(expected), abs=1e-9)
    assert list(scores.methods) == [name for name in LABELS if name not in SLOW]
    assert list(scores.beside) == list(LABELS)
    families = scores.methods[CANDIDATE].families
    assert scores.methods[CANDIDATE].overall.ssim == pytest.approx(np.mean([s.ssim for s in families.values()]))


def test_every_picture_family_and_method_has_a_row(untrained: Judged) -> None:
    scores = untrained.scores
    table = pd.read_parquet(untrained.folder / "evaluation" / "per_image.parquet")
    assert len(table) == 8 * 4 * 11  # fewer than slow methods repair
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
    keys = ["method", "family", "picture"]
    both = shown.merge(kept, on=keys, validate="one_to_one", suffixes=("", "_kept"))
    assert len(both) == len(shown) == len(kept)
    assert both["ssim"].to_numpy() == pytest.approx(both["ssim_kept"].to_numpy())
    assert list(dict.fromkeys(shown["method"]))[:2] == [CANDIDATE, CHAMPION]  # what is looked for comes first
    assert list(shown["repair"][:2]) == ["box 0, this model", "box 1, this model"]
    assert list(shown.columns[:2]) == ["repair", "ssim"]  # what MLflow compares runs by, and what it shows of them
    assert shown["repair"].is_unique


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


def test_the_champion_is_scored_again_on_the_same_pictures_and_an_equal_model_is_refused(
    untrained: Judged, tmp_path: Path
) -> None:
    scores, folder = untrained.scores, untrained.folder
    assert scores.champion == "1"
    assert scores.methods[CHAMPION].model_dump_json() == scores.methods[CANDIDATE].model_dump_json()
    table = pd.read_parquet(folder / "evaluation" / "per_image.parquet").drop(columns="method")
    names = pd.read_parquet(folder / "evaluation" / "per_image.parquet", columns=["method"])["method"]
    champion, candidate = (table[names == name].reset_index(drop=True) for name in (CHAMPION, CANDIDATE))
    pd.testing.assert_frame_equal(champion, candidate)
    decision = Decision.model_validate_json((folder / "decision" / "decision.json").read_bytes())
    assert {"trained", "champion"} <= {rule.name for rule in decision.rules if not rule.passed}
    with pytest.raises(RegistryError, match="the gate refused this model"):
        register(
            ServeConfig(),
            folder / "model",
            folder / "evaluation",
            folder / "decision",
            "run",
            tmp_path / "none.html",
            untrained.settings,
        )
    assert len(Registry(untrained.settings, "kintsugi").versions()) == 1


def test_the_papers_network_is_a_row_where_mlflow_holds_a_training_of_it(untrained: Judged) -> None:
    scores = untrained.scores
    client = MlflowClient(untrained.settings.mlflow_uri)
    name = client.get_run(run_of(untrained.folder / "paper", untrained.settings)).info.run_name
    assert scores.paper == (
        f"The paper's context encoder is that of the MLflow run {name}, trained for 1 steps on this dataset."
    )
    assert scores.methods[PAPER] != scores.methods[CANDIDATE]
    assert all(PAPER in part.methods for part in scores.slices)
    logged = client.get_run(scores.run_id).data.metrics
    assert logged[f"{PAPER}/ssim"] == pytest.approx(scores.methods[PAPER].overall.ssim)
    page = (untrained.folder / "verdict.html").read_text()
    assert page.count(f"<td>{LABELS[PAPER]}</td>") == 1
    assert page.count(f"<th>{LABELS[PAPER]}</th>") == 4  # three scores by family, one by slice


def test_the_nearest_usable_training_of_the_papers_network_is_taken(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    data = PreparedDataset.open(dataset)
    assert find_paper(settings, data, "")[1].startswith(
        "The paper's context encoder is not in these tables: MLflow holds no finished training of it"
    )
    paper = TrainConfig(model=PAPER, steps=7)
    others = data.manifest.model_copy(update={"digest": "e" * 64, "facts": data.manifest.facts | {"image_size": 8}})
    usable, broken = tmp_path / "usable", tmp_path / "broken"
    for folder in (usable, broken):
        folder.mkdir()
        save_generator(build_generator(PAPER), folder)
    (broken / WEIGHTS).write_bytes(b"")

    def trained(manifest: Manifest, folder: Path) -> str:
        with start_run(settings, RunConfig(), paper, manifest) as run:
            run.log_model_folder(folder)
        return run.id

    elsewhere = trained(others, usable)
    assert find_paper(settings, data, "")[1].endswith("trained for 7 steps on another dataset, pictures of 8 pixels.")
    here = trained(data.manifest, usable)
    trained(others, usable)  # newer, and farther
    found, origin = find_paper(settings, data, "")
    assert found is not None and origin.endswith("trained for 7 steps on this dataset.")
    assert find_paper(settings, data, here)[1].endswith("pictures of 8 pixels.")
    trained(data.manifest, broken)
    assert find_paper(settings, data, "")[1] == origin
    MlflowClient(settings.mlflow_uri).delete_run(elsewhere)


def test_mlflow_ties_the_scores_to_the_model_and_the_pictures_they_are_of(untrained: Judged) -> None:
    scores, client = untrained.scores, MlflowClient(untrained.settings.mlflow_uri)
    model = read_manifest(untrained.folder / "model", "model")
    logged, run = client.get_logged_model(scores.logged_model), client.get_run(scores.run_id)
    assert (logged.source_run_id, logged.tags["digest"]) == (scores.run_id, model.digest)
    assert run.outputs is not None and [one.model_id for one in run.outputs.model_outputs] == [scores.logged_model]
    tied = {metric.key: metric for metric in logged.metrics or []}
    headline = scores.methods[CANDIDATE].overall.headline
    assert {name: tied[f"test/{name}"].value for name in headline} == pytest.approx(headline)
    assert f"{BIHARMONIC}/ssim" in run.data.metrics and f"{BIHARMONIC}/ssim" not in tied
    assert run.inputs is not None
    (given,) = (given.dataset for given in run.inputs.dataset_inputs)
    found = {(metric.dataset_name, metric.dataset_digest) for metric in tied.values()}
    assert found == {(given.name, given.digest)}
    assert scores.dataset_digest.startswith(given.digest)


def strictly(text: str) -> Any:
    """Read JSON that holds no NaN and no Infinity, which JSON does not know."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def test_what_was_not_measured_poisons_neither_files_nor_metrics(untrained: Judged) -> None:
    folder, client = untrained.folder, MlflowClient(untrained.settings.mlflow_uri)
    assert (
        strictly((folder / "evaluation" / "scores.json").read_text())["methods"][CANDIDATE]["overall"]["mask_f1"]
        is None
    )
    strictly((folder / "decision" / "decision.json").read_text())
    logged = client.get_run(untrained.scores.run_id).data.metrics
    assert {"test/ssim", "test/hole_mse/text", "champion/psnr"} <= set(logged)
    assert all(math.isfinite(value) for value in logged.values())
    assert "test/mask_f1" not in logged


def test_perfect_repairs_and_pictures_without_a_hole_poison_no_table(dataset: Path) -> None:
    test = PreparedDataset.open(dataset).split("test")
    truths, holes = np.asarray(test.images), np.asarray(test.masks("box"))
    perfect = dict.fromkeys((DAMAGED, "exemplar", CHAMPION, CANDIDATE), truths)
    each = {"box": score_methods(perfect, truths, holes), "none": score_methods(perfect, truths, np.zeros_like(holes))}
    bootstrap = Bootstrap(range(len(truths)))
    evaluation = Evaluation(
        methods=method_scores(each, bootstrap), num_images=len(truths), families=list(each), model_digest="m",
        dataset_digest="d", run_id="r", model="residual_unet", steps=1, champion="1", num_beside=len(truths),
        beside=beside(each, {name: [0.1] for name in perfect}, len(truths)),
        differences=differences(each, bootstrap, [CHAMPION]),
    )  # fmt: skip
    strictly(evaluation.model_dump_json())
    wanted = {"ssim": 1, "psnr": PSNR_OF_PERFECT, "hole_mse": 0, "sharpness": 1, "gmsd": 0}
    for scores in evaluation.methods.values():
        assert scores.overall.headline == pytest.approx(wanted)
    gain = evaluation.differences[CHAMPION]["psnr"]
    assert (gain.mean, gain.low, gain.high) == (0, 0, 0)
    rules = {rule.name: rule.passed for rule in decide(evaluation, PipelineConfig().gate).rules}
    assert rules["scored"] and not rules["champion"]


def test_an_evaluation_of_another_model_registers_nothing(untrained: Judged, tmp_path: Path) -> None:
    folder = admitted(untrained, tmp_path)
    other = untrained.folder / "paper"
    with pytest.raises(RegistryError, match="of another model"):
        register(
            ServeConfig(),
            other,
            folder / "evaluation",
            folder / "decision",
            "run-1",
            tmp_path / "none.html",
            untrained.settings,
        )


def test_a_version_says_where_it_is_from_and_why_it_was_admitted(untrained: Judged, tmp_path: Path) -> None:
    run, query = "http://mlflow.example/#/experiments/1/runs/r", "workflowType=machine_learning"
    page = f"{run}?{query}"
    folder, model = admitted(untrained, tmp_path, run_page=page), untrained.folder / "model"
    settings = untrained.settings.model_copy(update={"kubeflow_url": "http://kubeflow.example/"})
    serve = ServeConfig(model_name="described")
    reports = tmp_path / "first.html", tmp_path / "again.html"
    first, again = (
        register(serve, model, folder / "evaluation", folder / "decision", "run-1", report, settings)
        for report in reports
    )
    registry = Registry(settings, "described")
    assert (first, again, len(registry.versions())) == ("1", "1", 1)
    assert registry.aliases() == {CHALLENGER: "1"}
    version, manifest = registry.get("1"), read_manifest(model, "model")
    decision = Decision.model_validate_json((folder / "decision" / "decision.json").read_bytes())
    expected = {
        "digest": manifest.digest, "weights": hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest(),
        "dataset": manifest.made_from["dataset"], "code": manifest.code_version, "policy": decision.policy_digest,
        "architecture": "residual_unet", "steps": "0", "pipeline_run": "run-1",
        "pipeline_run_page": "http://kubeflow.example/#/runs/details/run-1", "mlflow_run_page": page,
    }  # fmt: skip
    assert {name: version.tags[name] for name in expected} == expected
    assert version.run_id == untrained.scores.run_id
    assert version.scores == pytest.approx(untrained.scores.methods[CANDIDATE].overall.known)
    assert Decision.model_validate_json(version.tags["decision"]) == decision
    client = MlflowClient(settings.mlflow_uri)
    said = str(client.get_model_version("described", "1").description)
    assert "[pipeline run run-1](http://kubeflow.example/#/runs/details/run-1)" in said
    assert f"[MLflow run]({page})" in said and f"[report]({run}/artifacts/report.html?{query})" in said
    assert said.startswith(f"{decision.verdict} SSIM {untrained.scores.methods[CANDIDATE].overall.ssim:.4f} (")
    assert all(rule.sentence in said for rule in decision.rules)
    linked = client.get_logged_model(untrained.scores.logged_model).tags["mlflow.modelVersions"]
    assert {"name": "described", "version": "1"} in json.loads(linked)
    pages = [html.unescape(report.read_text()) for report in reports]
    assert "Registered." in pages[0] and "Registered before" not in pages[0] and "Registered before" in pages[1]
    for shown in pages:
        assert "described version 1" in shown and "It is challenger." in shown
        told = [rule.sentence for rule in decision.rules]
        of_it = [expected[name] for name in ("digest", "weights", "dataset", "code", "policy")]
        scores = untrained.scores.methods[CANDIDATE].overall
        for text in (*told, *of_it, page, expected["pipeline_run_page"], f"{scores.ssim:.4f}", f"{scores.psnr:.2f}"):
            assert text in shown, text
        assert "MLflow is no server here" in shown
        assert "in place of version 1, if that is champion still" in shown  # of the gate's decision


def test_a_registration_by_hand_says_what_command_finishes_it(untrained: Judged, tmp_path: Path) -> None:
    folder, model = admitted(untrained, tmp_path), untrained.folder / "model"
    decision = folder / "decision" / "decision.json"
    decision.write_text(json.dumps(json.loads(decision.read_text()) | {"mode": "manual"}))
    serve, report = ServeConfig(model_name="by-hand"), tmp_path / "report.html"
    register(serve, model, folder / "evaluation", folder / "decision", "run-1", report, untrained.settings)
    assert "<code>kintsugi promote 1 --model-name by-hand</code>" in report.read_text()
    assert "<code>promote</code> makes it" not in report.read_text()


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
