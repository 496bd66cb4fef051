"""The evaluate step: the candidate, the champion, classical methods and doing nothing, on the same holes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.config import ServeConfig, Settings
from components.evaluate.charts import draw_charts
from components.evaluate.exporting import export_and_measure
from components.evaluate.intervals import Bootstrap
from components.evaluate.paper import find_paper
from components.evaluate.repairing import Contest, num_beside
from components.evaluate.scoring import (
    Each,
    beside,
    differences,
    method_scores,
    per_image_table,
    score_methods,
    side_by_side,
    slices,
)
from components.hardware import choose_device
from components.inpainting.classical import SLOW
from components.inpainting.dataset import PreparedDataset, Split
from components.inpainting.export import ENGINE
from components.inpainting.images import Bytes, grid
from components.inpainting.networks import Generator, load_generator, name_of
from components.inpainting.scores import CANDIDATE, CHAMPION, CLASSICAL, DAMAGED, LABELS, PAPER, SHOWN, Evaluation
from components.manifest import Manifest, complete_folder, read_manifest, write_file
from components.progress import say, step
from components.report import evaluation_report
from components.tracking import Registry, Run, Subject, logged_model, open_run, run_page

KIND = "evaluation"
_COMPARED = ("ssim", "psnr", "hole_mse")  # of other methods, in MLflow


class EvaluationError(ValueError):
    """A model cannot be judged on these pictures."""


@step("evaluate")
def evaluate(
    config: ServeConfig, dataset: Path, model: Path, evaluation: Path, report: Path, settings: Settings
) -> dict[str, float]:
    """Score a model folder on a test split; returns the model's overall scores, the headlines.

    Writes an HTML report and a folder with ``scores.json``, ``per_image.parquet``, ``repairs.png`` and the model as
    it will be served, ``generator.onnx``. The champion, where there is one, is loaded from the registry and scored
    again on the same pictures and holes; so is the paper's context encoder, where MLflow holds one.
    Raises ``EvaluationError`` for a model of another dataset, and ``TrackingError`` where MLflow does not hold the
    model's run, and cannot get it now.
    """
    data, manifest = _opened(dataset, model)
    run = open_run(settings, manifest.facts["run_id"], manifest.facts.get("run_uid", ""))
    generators, facts = _contestants(config, settings, data, model, run.id)
    test, contest = data.split("test"), Contest(generators)
    each, gallery = _hold(contest, test, data.families)
    with complete_folder(evaluation, KIND) as draft:
        draft.made_from = {"dataset": data.manifest.digest, "model": manifest.digest}
        facts |= {
            "model_digest": manifest.digest,
            "dataset_digest": data.manifest.digest,
            "run_id": run.id,
            "run_page": run_page(settings, run.id),
            "model": manifest.facts["model"],
            "steps": manifest.facts["steps"],
            "logged_model": logged_model(settings, run.id, manifest),
            "exported": export_and_measure(generators[CANDIDATE], draft.path / ENGINE, test, data.families[0]),
        }
        result = Evaluation(**_compared(data, contest, each), **facts)
        (draft.path / "scores.json").write_text(result.model_dump_json(indent=2))
        table = per_image_table(data, each)
        table.to_parquet(draft.path / "per_image.parquet", index=False)
        Image.fromarray(_sheet(gallery, data.image_size)).save(draft.path / "repairs.png")
        draw_charts(result, model / "history.jsonl", draft.path / "charts")
    write_file(report, evaluation_report(evaluation, result))
    _log(run, result, evaluation, data.manifest.facts["source"])
    run.log_table(side_by_side(table).to_json(orient="split", index=False), "per_image.json")
    best = result.methods[CANDIDATE].overall
    scored = f"SSIM {best.ssim:.4f}, PSNR {best.psnr:.2f} dB, hole MSE {best.hole_mse:.5f}"
    say(f"scored {result.num_images} pictures: {scored}")
    return best.headline


def _opened(dataset: Path, model: Path) -> tuple[PreparedDataset, Manifest]:
    """A dataset, and the manifest of a model that was trained on it: of another it may have seen test pictures."""
    data, manifest = PreparedDataset.open(dataset), read_manifest(model, "model")
    made_from = manifest.made_from.get("dataset", "")
    if made_from != data.manifest.digest:
        raise EvaluationError(
            f"{model} was trained on the dataset {made_from[:12] or 'that nobody noted'}, and {dataset} is "
            f"{data.manifest.digest[:12]}, of which it may have seen test pictures; evaluate it on its own dataset, "
            "or train a model on this one"
        )
    return data, manifest


def _contestants(
    config: ServeConfig, settings: Settings, data: PreparedDataset, model: Path, run_id: str
) -> tuple[dict[str, Generator], dict[str, Any]]:
    """The generators that are compared, on the device, and what an ``Evaluation`` says of them."""
    generators = {CANDIDATE: load_generator(model)}
    registry = Registry(settings, config.model_name)
    champion = registry.champion()
    if champion:
        generators[CHAMPION] = load_generator(registry.download(champion))
    if name_of(generators[CANDIDATE]) == PAPER:
        paper, origin = None, "This model is the paper's context encoder."
    else:
        paper, origin = find_paper(settings, data, but_not=run_id)
    if paper:
        generators[PAPER] = paper
    say(origin)
    facts = {
        "champion": champion.number if champion else "",
        "champion_dataset": champion.tags.get("dataset", "") if champion else "",
        "blind": generators[CANDIDATE].blind,
        "champion_blind": champion is not None and generators[CHAMPION].blind,
        "paper": origin,
    }
    device = choose_device().torch
    return {name: generator.to(device) for name, generator in generators.items()}, facts


def _compared(data: PreparedDataset, contest: Contest, each: dict[str, Each]) -> dict[str, Any]:
    """What an ``Evaluation`` says of the methods' scores."""
    test = data.split("test")
    bootstrap = Bootstrap([row["photo"] for row in test.index])
    count = num_beside(test.damaged(data.families[0]))
    others = [name for name in (*CLASSICAL, PAPER, CHAMPION) if name in each[data.families[0]] and name not in SLOW]
    return {
        "methods": method_scores(each, bootstrap),
        "num_images": len(test.images),
        "num_photographs": bootstrap.num_photographs,
        "families": list(data.families),
        "beside": beside(each, contest.seconds, count),
        "num_beside": count,
        "differences": differences(each, bootstrap, others),
        "slices": list(slices(test, each)),
    }


Gallery = list[dict[str, Bytes]]
"""Rows of pictures by caption or method, uint8 ``H,W,3``: what was damaged, the mask, repairs, the truth, the error."""
_TRUTH = "truth"
_ERROR_GAIN = 4


def _hold(contest: Contest, test: Split, families: tuple[str, ...]) -> tuple[dict[str, Each], Gallery]:
    """Let all methods repair all pictures, a family at a time: scores per family, and pictures worth a look."""
    each: dict[str, Each] = {}
    gallery: Gallery = []
    truths = np.asarray(test.images)
    for family in families:
        repairs = contest.repair(test, family)
        each[family] = score_methods(repairs, truths, np.asarray(test.masks(family)))
        for name, found in contest.find(test, family).items():
            each[family][name] |= found
        order = np.argsort(-each[family][CANDIDATE]["ssim"])
        for i in (order[0], order[len(order) // 2], order[-1]):
            row = {
                DAMAGED: repairs[DAMAGED][i],
                "mask": np.repeat(test.masks(family)[i][..., None] * np.uint8(255), 3, 2),
            }
            row |= {name: repairs[name][i] for name in SHOWN if name in repairs}
            gallery.append(row | {_TRUTH: truths[i], "error": _error_map(repairs[CANDIDATE][i], truths[i])})
    return each, gallery


def _error_map(repair: Bytes, truth: Bytes) -> Bytes:
    """How far a repair is from the truth, uint8 ``H,W,3``: black where equal, white from a quarter of the range."""
    worst = np.abs(repair.astype(int) - truth).max(axis=2, keepdims=True)
    return np.repeat(np.clip(worst * _ERROR_GAIN, 0, 255).astype(np.uint8), 3, axis=2)


def _sheet(gallery: Gallery, size: int) -> Bytes:
    """Of each family the best, the median and the worst repair by SSIM, side by side with the other methods."""
    short = LABELS | {DAMAGED: "damaged", PAPER: "paper"}
    captions = [short.get(name, name) for name in gallery[0]]
    return grid([list(row.values()) for row in gallery], captions, scale=max(1, 128 // size))


def _log(run: Run, result: Evaluation, folder: Path, source: str) -> None:
    """The candidate's scores as ``test/*``, tied to its logged model; those of others under their names."""
    candidate = result.methods[CANDIDATE]
    metrics = {f"test/{name}": value for name, value in candidate.overall.headline.items()}
    for family, scored in candidate.families.items():
        metrics |= {f"test/{name}/{family}": value for name, value in scored.headline.items()}
    if result.exported:
        metrics |= {"export/milliseconds": result.exported.milliseconds, "export/megabytes": result.exported.megabytes}
    run.log_metrics(metrics, result.steps, Subject.of(result.logged_model, source, result.dataset_digest))
    others = [name for name in result.in_tables if name not in (CANDIDATE, DAMAGED)]
    scores = {name: result.methods[name].overall for name in others}
    run.log_metrics(
        {f"{name}/{metric}": getattr(score, metric) for name, score in scores.items() for metric in _COMPARED},
        result.steps,
    )
    for name in ("scores.json", "per_image.parquet", "repairs.png", ENGINE):
        run.log_file(folder / name, "evaluation")
