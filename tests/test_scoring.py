"""The functions that make an evaluation of scores, on tables that were computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.config import PipelineConfig
from components.evaluate.intervals import Bootstrap
from components.evaluate.repairing import num_beside
from components.evaluate.scoring import beside, differences, method_scores, score_methods, slices
from components.gate import decide
from components.inpainting.completeness import gaps
from components.inpainting.dataset import PreparedDataset
from components.inpainting.metrics import PSNR_OF_PERFECT
from components.inpainting.scores import BIHARMONIC, CANDIDATE, CHAMPION, CHARTS, DAMAGED, Evaluation
from tests.scored import EACH, FAMILIES, SECONDS, evaluated, split, strictly

BOOTSTRAP = Bootstrap("aabb")


def test_means_are_over_pictures_and_then_over_families() -> None:
    found = method_scores(EACH, BOOTSTRAP)
    assert set(found) == {DAMAGED, BIHARMONIC, CHAMPION, CANDIDATE}  # not the slow one
    model = found[CANDIDATE]
    assert {family: score.ssim for family, score in model.families.items()} == pytest.approx({"box": 0.7, "text": 0.95})
    assert model.overall.ssim == pytest.approx(0.825)
    assert model.overall.psnr == pytest.approx(82.5)
    assert model.overall.hole_mse == pytest.approx(0.0175)
    assert found[CHAMPION].overall.ssim == pytest.approx(0.8)
    means = {place: of["ssim"].mean for place, of in model.intervals.items()}
    assert means == pytest.approx({"box": 0.7, "text": 0.95, "overall": 0.825})


def test_differences_are_this_model_less_the_other_per_family_and_over_all() -> None:
    found = differences(EACH, BOOTSTRAP, [BIHARMONIC, CHAMPION])
    assert list(found) == [BIHARMONIC, CHAMPION]
    assert all(list(of) == [*FAMILIES, "overall"] for of in found.values())
    means = {place: of["ssim"].mean for place, of in found[CHAMPION].items()}
    assert means == pytest.approx({"box": -0.1, "text": 0.15, "overall": 0.025})
    assert found[CHAMPION]["overall"]["psnr"].mean == pytest.approx(2.5)
    assert found[CHAMPION]["overall"]["hole_mse"].mean == pytest.approx(-0.0025)
    # two photographs, +0.1 and -0.3 under boxes: Student's t is 12.7, the standard error 0.2
    for gain, mean, error in ((found[CHAMPION]["box"], -0.1, 0.2), (found[BIHARMONIC]["text"], 0.25, 0.05)):
        assert gain["ssim"].mean == pytest.approx(mean)
        assert gain["ssim"].high - mean == pytest.approx(12.706 * error, rel=0.05)
        assert mean - gain["ssim"].low == pytest.approx(12.706 * error, rel=0.05)


def test_all_methods_are_beside_each_other_on_the_first_pictures_alone() -> None:
    found = beside(EACH, SECONDS, 2)
    assert {name: one.score.ssim for name, one in found.items()} == pytest.approx(
        {DAMAGED: 0.2, BIHARMONIC: 0.6, "exemplar": 0.4, CHAMPION: 0.75, CANDIDATE: 0.85}
    )
    assert found[CANDIDATE].seconds == 1.5 and found[BIHARMONIC].seconds == pytest.approx(0.2)
    assert np.isnan(found[DAMAGED].seconds)
    assert beside(EACH, SECONDS, 1)["exemplar"].score.ssim == pytest.approx(0.3)


@pytest.mark.parametrize(("count", "size", "few"), [(96, 64, 24), (8, 64, 8), (96, 32, 96), (96, 128, 6), (96, 512, 4)])
def test_of_so_many_pictures_slow_methods_repair_some(count: int, size: int, few: int) -> None:
    assert num_beside(np.zeros((count, size, size, 3), np.uint8)) == few


def test_slices_are_by_family_bin_of_ten_percent_and_class(tmp_path: Path) -> None:
    holes = {"box": [5, 15, 19, 65], "text": [0, 9, 59, 100]}
    found = list(slices(split(tmp_path, holes, ["cat", "cat", "dog", "dog"]), EACH))
    assert {part.name: part.num_images for part in found} == {
        "box, 0-10 %, cat": 1, "box, 10-20 %, cat": 1, "box, 10-20 %, dog": 1, "box, over 60 %, dog": 1,
        "text, 0-10 %, cat": 2, "text, 50-60 %, dog": 1, "text, over 60 %, dog": 1,
    }  # fmt: skip
    ssim = {part.name: part.methods[CHAMPION].ssim for part in found}
    assert ssim["box, 10-20 %, dog"] == pytest.approx(0.9) and ssim["text, 0-10 %, cat"] == pytest.approx(0.8)
    assert all(list(part.methods) == [DAMAGED, BIHARMONIC, CHAMPION, CANDIDATE] for part in found)


def test_pictures_without_classes_are_sliced_by_family_and_bin(tmp_path: Path) -> None:
    holes = {"box": [10, 20, 30, 40], "text": [33, 34, 35, 36]}
    found = list(slices(split(tmp_path, holes, ["", "", "", ""]), EACH))
    assert [part.name for part in found] == [
        "box, 10-20 %", "box, 20-30 %", "box, 30-40 %", "box, 40-50 %", "text, 30-40 %",
    ]  # fmt: skip
    assert [part.num_images for part in found] == [1, 1, 1, 1, 4]


@pytest.mark.parametrize("photographs", ["aabb", "aaaa"])
def test_charts_are_drawn_of_one_photograph_too(photographs: str, tmp_path: Path) -> None:
    evaluated(tmp_path, photographs)
    drawn = (tmp_path / "charts" / "families.svg").read_text()
    assert "over champion" in drawn and "over biharmonic" in drawn
    assert {path.stem for path in (tmp_path / "charts").iterdir()} == set(CHARTS)


def test_perfect_repairs_and_pictures_without_a_hole_poison_no_table(dataset: Path) -> None:
    test = PreparedDataset.open(dataset).split("test")
    truths, holes = np.asarray(test.images), np.asarray(test.masks("box"))
    perfect = dict.fromkeys((DAMAGED, "exemplar", CHAMPION, CANDIDATE), truths)
    each = {"box": score_methods(perfect, truths, holes), "none": score_methods(perfect, truths, np.zeros_like(holes))}
    bootstrap = Bootstrap(range(len(truths)))
    evaluation = Evaluation(
        methods=method_scores(each, bootstrap), num_images=len(truths),
        num_photographs=len(truths), families=list(each), model_digest="m",
        dataset_digest="d", run_id="r", model="residual_unet", steps=1, champion="1", num_beside=len(truths),
        beside=beside(each, {name: [0.1] for name in perfect}, len(truths)),
        differences=differences(each, bootstrap, [CHAMPION]),
    )  # fmt: skip
    strictly(evaluation.model_dump_json())
    wanted = {"ssim": 1, "psnr": PSNR_OF_PERFECT, "hole_mse": 0, "sharpness": 1, "gmsd": 0}
    for scores in evaluation.methods.values():
        assert scores.overall.headline == pytest.approx(wanted)
    gain = evaluation.differences[CHAMPION]["overall"]["psnr"]
    assert (gain.mean, gain.low, gain.high) == (0, 0, 0)
    assert not [gap for gap in gaps(evaluation) if "finite" in gap or "interval" in gap or "means" in gap]
    rules = {rule.name: rule.passed for rule in decide(evaluation, PipelineConfig().gate).rules}
    assert not rules["champion"]  # an equal is not better
