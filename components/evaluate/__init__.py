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
from components.evaluate.repairing import Contest, num_beside
from components.evaluate.scoring import (
    Each,
    beside,
    differences,
    method_scores,
    per_image_table,
    score_methods,
    slices,
)
from components.hardware import choose_device
from components.inpainting.dataset import PreparedDataset, Split
from components.inpainting.export import ENGINE
from components.inpainting.images import Bytes, grid
from components.inpainting.networks import load_generator
from components.inpainting.scores import BIHARMONIC, CANDIDATE, CHAMPION, DAMAGED, LABELS, SHOWN, Evaluation
from components.manifest import complete_folder, read_manifest, write_file
from components.progress import say, step
from components.report import evaluation_report
from components.tracking import Registry, Run, open_run, run_page

KIND = "evaluation"


@step("evaluate")
def evaluate(
    config: ServeConfig, dataset: Path, model: Path, evaluation: Path, report: Path, settings: Settings
) -> dict[str, float]:
    """Score a model folder on a test split; returns the model's overall scores.

    Writes an HTML report and a folder with ``scores.json``, ``per_image.parquet``, ``repairs.png`` and the model as
    it will be served, ``generator.onnx``. The champion, where there is one, is loaded from the registry and scored
    again on the same pictures and holes.
    Raises ``TrackingError`` where MLflow does not hold the model's run, and cannot get it now.
    """
    data, manifest = PreparedDataset.open(dataset), read_manifest(model, "model")
    run = open_run(settings, manifest.facts["run_id"], manifest.facts.get("run_uid", ""))
    device = choose_device().torch
    generators = {CANDIDATE: load_generator(model).to(device)}
    registry = Registry(settings, config.model_name)
    champion = registry.champion()
    if champion:
        generators[CHAMPION] = load_generator(registry.download(champion)).to(device)
    test, contest = data.split("test"), Contest(generators)
    each, gallery = _hold(contest, test, data.families)
    with complete_folder(evaluation, KIND) as draft:
        draft.made_from = {"dataset": data.manifest.digest, "model": manifest.digest}
        facts = {
            "model_digest": manifest.digest,
            "dataset_digest": data.manifest.digest,
            "run_id": run.id,
            "run_page": run_page(settings, run.id),
            "model": manifest.facts["model"],
            "steps": manifest.facts["steps"],
            "champion": champion.number if champion else "",
            "blind": generators[CANDIDATE].blind,
            "exported": export_and_measure(generators[CANDIDATE], draft.path / ENGINE, test, data.families[0]),
        }
        result = Evaluation(**_compared(data, contest, each), **facts)
        (draft.path / "scores.json").write_text(result.model_dump_json(indent=2))
        table = per_image_table(data, each)
        table.to_parquet(draft.path / "per_image.parquet", index=False)
        Image.fromarray(_sheet(gallery, data.image_size)).save(draft.path / "repairs.png")
        draw_charts(result, model / "history.jsonl", draft.path / "charts")
    write_file(report, evaluation_report(evaluation, result))
    _log(run, result, evaluation)
    run.log_table(table.to_json(orient="split", index=False), "per_image.json")
    best = result.methods[CANDIDATE].overall
    scored = f"SSIM {best.ssim:.4f}, PSNR {best.psnr:.2f} dB, hole MSE {best.hole_mse:.5f}"
    say(f"scored {result.num_images} pictures: {scored}")
    return best.known


def _compared(data: PreparedDataset, contest: Contest, each: dict[str, Each]) -> dict[str, Any]:
    """What an ``Evaluation`` says of the methods' scores."""
    test = data.split("test")
    bootstrap = Bootstrap([row["photo"] for row in test.index])
    count = num_beside(test.damaged(data.families[0]))
    others = [name for name in (BIHARMONIC, CHAMPION) if name in each[data.families[0]]]
    return {
        "methods": method_scores(each, bootstrap),
        "num_images": len(test.images),
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
    captions = [LABELS.get(name, name) if name != DAMAGED else "damaged" for name in gallery[0]]
    return grid([list(row.values()) for row in gallery], captions, scale=max(1, 128 // size))


def _log(run: Run, result: Evaluation, folder: Path) -> None:
    candidate = result.methods[CANDIDATE]
    metrics = {f"test/{name}": value for name, value in candidate.overall.known.items()}
    for family, scored in candidate.families.items():
        metrics |= {f"test/{name}/{family}": value for name, value in scored.known.items()}
    metrics |= {f"test/{name}/{BIHARMONIC}": value for name, value in result.methods[BIHARMONIC].overall.known.items()}
    if result.exported:
        metrics |= {"export/milliseconds": result.exported.milliseconds, "export/megabytes": result.exported.megabytes}
    run.log_metrics(metrics, result.steps)
    for name in ("scores.json", "per_image.parquet", "repairs.png", ENGINE):
        run.log_file(folder / name, "evaluation")
