"""Scores small enough to be computed by hand, and the evaluation that they make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.evaluate.charts import draw_charts
from components.evaluate.intervals import Bootstrap
from components.evaluate.scoring import Each, beside, differences, method_scores, slices
from components.inpainting.dataset import Split
from components.inpainting.metrics import Scores
from components.inpainting.scores import BIHARMONIC, CANDIDATE, CHAMPION, DAMAGED, Evaluation

FAMILIES = ("box", "text")


def scores(*ssim: float) -> dict[str, Scores]:
    """Scores of some pictures: PSNR is 100 times SSIM, hole MSE a tenth of what SSIM lacks to 1."""
    values = np.array(ssim)
    return {"ssim": values, "psnr": 100 * values, "hole_mse": (1 - values) / 10}


EACH: dict[str, Each] = {
    "box": {
        DAMAGED: scores(0.1, 0.1, 0.1, 0.1), BIHARMONIC: scores(0.5, 0.5, 0.5, 0.5), "exemplar": scores(0.2, 0.4),
        CHAMPION: scores(0.7, 0.7, 0.9, 0.9), CANDIDATE: scores(0.8, 0.8, 0.6, 0.6),
    },
    "text": {
        DAMAGED: scores(0.3, 0.3, 0.3, 0.3), BIHARMONIC: scores(0.7, 0.7, 0.7, 0.7), "exemplar": scores(0.4, 0.6),
        CHAMPION: scores(0.8, 0.8, 0.8, 0.8), CANDIDATE: scores(0.9, 0.9, 1.0, 1.0),
    },
}  # fmt: skip
"""Four pictures, two of each of two photographs, under two families; of the slow method two."""

SECONDS = {BIHARMONIC: [0.1, 0.3], "exemplar": [2.0], CHAMPION: [1.0], CANDIDATE: [1.0, 2.0]}


def split(folder: Path, shares: dict[str, list[int]], classes: list[str]) -> Split:
    """A split of pictures of 10x10 pixels, of which each family has cut away some number of pixels."""
    for family, counts in shares.items():
        masks = np.array([np.arange(100) < count for count in counts]).reshape(-1, 10, 10)
        np.save(folder / f"masks-{family}.npy", masks.astype(np.uint8))
    (folder / "index.jsonl").write_text("\n".join(json.dumps({"class_name": name}) for name in classes))
    return Split(folder)


def evaluated(folder: Path, photographs: str) -> Evaluation:
    """What ``EACH`` makes, of pictures of ``photographs``, a letter each; its charts and a gallery in ``folder``."""
    bootstrap = Bootstrap(photographs)
    test = split(folder, {family: [5, 15, 25, 35] for family in FAMILIES}, [""] * 4)
    evaluation = Evaluation(
        methods=method_scores(EACH, bootstrap), num_images=4, num_photographs=bootstrap.num_photographs,
        families=list(FAMILIES), model_digest="m", dataset_digest="d", run_id="r", model="residual_unet", steps=1,
        champion="1", champion_dataset="d", beside=beside(EACH, SECONDS, 2), num_beside=2, paper="No paper.",
        differences=differences(EACH, bootstrap, [BIHARMONIC, CHAMPION]), slices=list(slices(test, EACH)),
    )  # fmt: skip
    curves = dict.fromkeys(("g_loss", "d_loss", "d_accuracy", "mse", "ssim"), 0.5)
    (folder / "history.jsonl").write_text(json.dumps({"step": 1, **curves}))
    draw_charts(evaluation, folder / "history.jsonl", folder / "charts")
    Image.new("RGB", (8, 8)).save(folder / "repairs.png")
    return evaluation


def strictly(text: str) -> Any:
    """Read JSON that holds no NaN and no Infinity, which JSON does not know."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)
