from __future__ import annotations

import hashlib
import html
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from playwright.sync_api import Browser
from skimage.metrics import structural_similarity

from components.config import PipelineConfig, RunConfig, ServeConfig, Settings, TrainConfig
from components.evaluate import EvaluationError, evaluate
from components.evaluate.repairing import Contest, judged
from components.gate import gate
from components.inpainting.classical import SLOW, repair
from components.inpainting.dataset import PreparedDataset
from components.inpainting.export import ENGINE
from components.inpainting.metrics import score_each
from components.inpainting.networks import CONFIG, WEIGHTS, build_generator, load_generator, save_generator
from components.inpainting.scores import (
    BIHARMONIC,
    CANDIDATE,
    CHAMPION,
    CHARTS,
    LABELS,
    PAPER,
    Decision,
    Evaluation,
    Score,
)
from components.manifest import read_manifest
from components.register import register
from components.tracking import CHALLENGER, Registry, RegistryError, start_run
from tests.registered import pack, servable
from tests.scored import strictly
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
    make_champion(settings, serve, dataset, folder)
    evaluate(serve, dataset, folder / "model", folder / "evaluation", folder / "report.html", settings)
    gate(PipelineConfig().gate, folder / "evaluation", folder / "decision", folder / "verdict.html", settings)
    scores = Evaluation.model_validate_json((folder / "evaluation" / "scores.json").read_bytes())
    return Judged(settings, folder, scores)


def make_champion(settings: Settings, serve: ServeConfig, dataset: Path, folder: Path) -> None:
    """Make a model with other weights than ``folder/model`` champion, of a dataset that the registry calls "other"."""
    generator, weights = load_generator(folder / "model"), folder / "champion"
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    weights.mkdir()
    save_generator(generator, weights)
    with start_run(settings, RunConfig(), TrainConfig(steps=3), PreparedDataset.open(dataset).manifest) as run:
        run.log_model_folder(weights)
    registry = Registry(settings, serve.model_name)
    champion = registry.register(run.id, servable() | {"digest": "c" * 64, "dataset": "other"})
    registry.record(champion.number, {f"generator/{name}": weights / name for name in (CONFIG, WEIGHTS)})
    pack(settings, registry, champion.number)
    registry.promote(champion.number)


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


def test_the_champion_is_scored_again_on_the_same_pictures_and_who_is_no_better_is_refused(
    untrained: Judged, dataset: Path, tmp_path: Path
) -> None:
    scores, folder = untrained.scores, untrained.folder
    assert (scores.champion, scores.champion_dataset) == ("1", "other")
    repaired = judged(load_generator(folder / "champion"))
    test = PreparedDataset.open(dataset).split("test")
    masks, truths = np.asarray(test.masks("text")), np.asarray(test.images)
    found = np.stack([repaired(*pair) for pair in zip(np.asarray(test.damaged("text")), masks, strict=True)])
    again = score_each(found, truths, masks)
    for metric in ("ssim", "hole_mse"):
        champion = getattr(scores.score(CHAMPION, "text"), metric)
        assert champion == pytest.approx(again[metric].mean(), rel=1e-6)
        gain = scores.differences[CHAMPION]["text"][metric]
        assert gain.mean == pytest.approx(getattr(scores.score(CANDIDATE, "text"), metric) - champion)
        assert abs(gain.mean) > 1e-4
    decision = Decision.model_validate_json((folder / "decision" / "decision.json").read_bytes())
    rules = {rule.name: rule.passed for rule in decision.rules}
    assert not rules["trained"] and rules["scored"]
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


def test_a_model_of_another_dataset_is_not_evaluated(untrained: Judged, small: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "evaluation"
    with pytest.raises(EvaluationError, match=r"trained on the dataset .* evaluate it on its own"):
        evaluate(ServeConfig(), small, untrained.folder / "model", elsewhere, tmp_path / "r.html", untrained.settings)
    assert not elsewhere.exists()


def test_the_report_says_over_how_many_photographs_and_who_may_have_seen_them(untrained: Judged) -> None:
    scores, page = untrained.scores, html.unescape((untrained.folder / "verdict.html").read_text())
    assert scores.num_photographs == 3
    assert "8 test pictures from 3 photographs under each of 4 mask families" in page
    assert "none of them cut from a photograph that this model was trained on" in page
    assert "it was trained on another dataset, and may have seen some of them" in page


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
    assert page.count(f"<td>{LABELS[PAPER]}</td>") == 2  # the table of all methods, that of gains
    assert page.count(f"<th>{LABELS[PAPER]}</th>") == 4  # three scores by family, one by slice


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


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("name", ["report.html", "verdict.html"])
def test_a_report_is_legible_in_a_sandboxed_frame_and_asks_for_nothing(
    name: str, width: int, untrained: Judged, browser: Browser
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    content = html.escape((untrained.folder / name).read_text())
    frame = "border: 0; display: block; width: 100vw; height: 100vh"
    page.set_content(
        f'<body style="margin: 0"><iframe sandbox="allow-scripts" style="{frame}" srcdoc="{content}"></iframe></body>'
    )
    report = page.frames[1]
    report.wait_for_selector("h1")
    if name == "verdict.html":
        box = report.locator(".verdict").bounding_box()
        assert box is not None and box["y"] + box["height"] < 800
    report.locator("summary").click()
    seen, whole = report.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollWidth]")
    assert seen == width and whole <= seen
    assert report.locator("svg").count() == len(CHARTS)
    assert report.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert not errors
    assert all(address.startswith(("about:", "data:")) for address in requests)
    page.close()
