"""The evaluate step: the candidate, the champion, a classical method and doing nothing, on the same holes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from components.config import ServeConfig, Settings
from components.evaluate.scoring import Each, Repairs, mean, overall, per_image_table, score_methods
from components.hardware import choose_device
from components.inpainting.dataset import PreparedDataset, Split
from components.inpainting.images import Bytes, grid
from components.inpainting.inpainter import Inpainter, open_classical, wrap_generator
from components.inpainting.networks import Generator, load_generator
from components.inpainting.scores import (
    BIHARMONIC,
    CANDIDATE,
    CHAMPION,
    DAMAGED,
    LABELS,
    Evaluation,
    MethodScores,
)
from components.manifest import complete_folder, read_manifest, write_file
from components.progress import say, step, track
from components.report import evaluation_report
from components.tracking import Registry, Run, open_run

KIND = "evaluation"


@step("evaluate")
def evaluate(
    config: ServeConfig, dataset: Path, model: Path, evaluation: Path, report: Path, settings: Settings
) -> dict[str, float]:
    """Score a model folder on a test split; returns the model's overall scores.

    Writes an HTML report and a folder with ``scores.json``, ``per_image.parquet`` and ``repairs.png``. The
    champion, where there is one, is loaded from the registry and scored again on the same pictures and holes.
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
    methods: dict[str, Inpainter] = {BIHARMONIC: open_classical("biharmonic")}
    methods |= {name: _judged(generator) for name, generator in generators.items()}
    test = data.split("test")
    repairs = {family: _repair_all(test, family, methods) for family in data.families}
    each = {
        family: score_methods(repaired, np.asarray(test.images), test.masks(family))
        for family, repaired in repairs.items()
    }
    result = Evaluation(
        methods=_means(each),
        num_images=len(test.images),
        families=list(data.families),
        model_digest=manifest.digest,
        dataset_digest=data.manifest.digest,
        run_id=run.id,
        model=manifest.facts["model"],
        steps=manifest.facts["steps"],
        champion=champion.number if champion else "",
    )
    _write(evaluation, data, repairs, each, result)
    write_file(report, evaluation_report(evaluation, result))
    _log(run, result, evaluation)
    best = result.methods[CANDIDATE].overall
    scored = f"SSIM {best.ssim:.4f}, PSNR {best.psnr:.2f} dB, hole MSE {best.hole_mse:.5f}"
    say(f"scored {result.num_images} pictures: {scored}")
    return best.model_dump()


def _judged(generator: Generator) -> Inpainter:
    """A generator as it is judged: a blind one is not shown where the damage is, and nothing is pasted for it."""
    repair = wrap_generator(generator)
    return (lambda image, mask: repair(image, np.zeros_like(mask))) if generator.blind else repair


def _repair_all(test: Split, family: str, methods: dict[str, Inpainter]) -> Repairs:
    """Every method's repairs of every test picture under one family's holes, ``N,H,W,3`` each."""
    images, masks, damaged = np.asarray(test.images), np.asarray(test.masks(family)), np.asarray(test.damaged(family))
    repairs: Repairs = {DAMAGED: damaged} | {name: np.empty_like(images) for name in methods}
    for i in track(range(len(images)), f"evaluate {family}", len(images)):
        for name, inpaint in methods.items():
            repairs[name][i] = inpaint(damaged[i], masks[i])
    return repairs


def _means(each: dict[str, Each]) -> dict[str, MethodScores]:
    scores = {}
    for name in (name for name in LABELS if name in next(iter(each.values()))):
        families = {family: mean(methods[name]) for family, methods in each.items()}
        scores[name] = MethodScores(families=families, overall=overall(list(families.values())))
    return scores


def _write(
    target: Path, data: PreparedDataset, repairs: dict[str, Repairs], each: dict[str, Each], result: Evaluation
) -> None:
    with complete_folder(target, KIND) as draft:
        draft.made_from = {"dataset": result.dataset_digest, "model": result.model_digest}
        (draft.path / "scores.json").write_text(result.model_dump_json(indent=2))
        per_image_table(data, each).to_parquet(draft.path / "per_image.parquet", index=False)
        Image.fromarray(_gallery(data, repairs, each)).save(draft.path / "repairs.png")


def _gallery(data: PreparedDataset, repairs: dict[str, Repairs], each: dict[str, Each]) -> Bytes:
    """Of each family the best, the median and the worst repair by SSIM, side by side with the other methods."""
    truths = data.split("test").images
    methods = [name for name in LABELS if name in next(iter(repairs.values()))]
    rows = []
    for family in data.families:
        order = np.argsort(-each[family][CANDIDATE]["ssim"])
        for i in (order[0], order[len(order) // 2], order[-1]):
            rows.append([*(repairs[family][name][i] for name in methods), truths[i]])
    return grid(
        rows, ["damaged", *(LABELS[name] for name in methods[1:]), "truth"], scale=max(1, 128 // data.image_size)
    )


def _log(run: Run, result: Evaluation, folder: Path) -> None:
    candidate = result.methods[CANDIDATE]
    metrics = {f"test/{name}": value for name, value in candidate.overall}
    for family, scored in candidate.families.items():
        metrics |= {f"test/{name}/{family}": value for name, value in scored}
    metrics |= {f"test/{name}/{BIHARMONIC}": value for name, value in result.methods[BIHARMONIC].overall}
    run.log_metrics(metrics, result.steps)
    for name in ("scores.json", "per_image.parquet", "repairs.png"):
        run.log_file(folder / name, "evaluation")
