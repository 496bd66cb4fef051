from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.ndimage import convolve
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from components.inpainting.images import Bytes
from components.inpainting.metrics import (
    PSNR_OF_PERFECT,
    gmsd,
    hole_l1,
    hole_mse,
    hole_psnr,
    hole_ssim,
    l1,
    mask_scores,
    mse,
    psnr,
    score_each,
    sharpness,
    ssim,
    ssim_of_planes,
)


@pytest.fixture
def pairs(photographs: list[Bytes]) -> tuple[Bytes, Bytes]:
    """Real pictures and noisy ones, ``N,H,W,3``."""
    truths = np.stack([photo[:96, :80] for photo in photographs])
    noise = np.random.default_rng(0).normal(0, [[[[4]]], [[[20]]], [[[60]]]], truths.shape)
    return np.clip(truths + noise, 0, 255).astype(np.uint8), truths


def test_ssim_equals_scikit_image(pairs: tuple[Bytes, Bytes]) -> None:
    expected = [structural_similarity(a, b, channel_axis=-1) for a, b in zip(*pairs, strict=True)]
    assert ssim(*pairs) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 200])
def test_ssim_of_a_batch_is_that_of_its_pictures_however_many(count: int, photographs: list[Bytes]) -> None:
    draw = np.random.default_rng(0)
    truths = np.stack([photographs[i % 3][i % 90 : i % 90 + 31, 5:46] for i in range(count)])
    repairs = draw.integers(0, 256, truths.shape, np.uint8)
    repairs[0], truths[0] = 255, 0  # as large as differences and sums become
    expected = [structural_similarity(a, b, channel_axis=-1) for a, b in zip(repairs, truths, strict=True)]
    assert ssim(repairs, truths) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_planes_as_training_and_gpus_compute_it_equals_scikit_image(pairs: tuple[Bytes, Bytes]) -> None:
    a, b = (torch.from_numpy(x).permute(0, 3, 1, 2).double() / 255 for x in pairs)
    expected = [structural_similarity(a, b, channel_axis=-1) for a, b in zip(*pairs, strict=True)]
    assert ssim_of_planes(a, b).numpy() == pytest.approx(expected, abs=1e-9)
    assert ssim_of_planes(a.float(), b.float()).numpy() == pytest.approx(expected, abs=1e-4)


def test_ssim_of_the_hole_is_the_mean_of_scikit_images_map_there(pairs: tuple[Bytes, Bytes]) -> None:
    masks = (np.random.default_rng(1).random(pairs[0].shape[:3]) < 0.2).astype(np.uint8)
    masks[:, :, :40] = 0
    expected = []
    for a, b, mask in zip(*pairs, masks, strict=True):
        _, similarity = structural_similarity(a, b, channel_axis=-1, full=True)
        nearest = np.pad(similarity[3:-3, 3:-3], ((3, 3), (3, 3), (0, 0)), mode="edge")
        expected.append(nearest[mask > 0].mean())
    assert hole_ssim(*pairs, masks) == pytest.approx(expected, abs=1e-9)


def test_a_hopeless_repair_at_the_border_is_no_perfect_one() -> None:
    truth, mask = np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16), np.uint8)
    truth[:, :, ::2] = 255
    mask[:, :2] = 1
    repair = truth.copy()
    repair[:, :2] = 255 - repair[:, :2]  # two of seven rows in the nearest windows, those around row 3
    _, similarity = structural_similarity(repair[0], truth[0], channel_axis=-1, full=True)
    assert hole_ssim(repair, truth, mask) == pytest.approx([similarity[3, 3:-3].mean()], abs=0.01)
    assert hole_ssim(repair, truth, mask)[0] < 0.6
    corner = np.zeros_like(mask)
    corner[:, 0, 0] = 1
    assert hole_ssim(repair, truth, corner) == pytest.approx([similarity[3, 3].mean()])
    corner[:, 3, 3] = 1  # the same window
    assert hole_ssim(repair, truth, corner) == pytest.approx([similarity[3, 3].mean()])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (6, 40), (40, 6)])
def test_pictures_smaller_than_a_window_are_refused_in_a_sentence(height: int, width: int) -> None:
    picture, mask = np.zeros((2, height, width, 3), np.uint8), np.ones((2, height, width), np.uint8)
    planes = torch.zeros(2, 3, height, width, dtype=torch.float64)
    for score in (
        lambda: ssim(picture, picture),
        lambda: hole_ssim(picture, picture, mask),
        lambda: score_each(picture, picture, mask),
        lambda: ssim_of_planes(planes, planes),
    ):
        with pytest.raises(ValueError, match=f"pictures of {width}x{height} pixels are too small for SSIM"):
            score()


def test_pictures_of_one_window_have_its_similarity_everywhere() -> None:
    draw = np.random.default_rng(0)
    a, b = (draw.integers(0, 256, (1, 7, 7, 3), np.uint8) for _ in range(2))
    for mask in (np.ones((1, 7, 7), np.uint8), np.eye(7, dtype=np.uint8)[None]):
        assert hole_ssim(a, b, mask) == pytest.approx(ssim(a, b))


def test_mse_and_l1_of_the_picture_are_those_of_a_full_hole(pairs: tuple[Bytes, Bytes]) -> None:
    full = np.ones(pairs[0].shape[:3], np.uint8)
    assert mse(*pairs) == pytest.approx([mean_squared_error(a / 255, b / 255) for a, b in zip(*pairs, strict=True)])
    assert mse(*pairs) == pytest.approx(hole_mse(*pairs, full))
    assert l1(*pairs) == pytest.approx(hole_l1(*pairs, full))
    assert hole_psnr(*pairs, full) == pytest.approx(psnr(*pairs))
    assert l1(np.full((1, 8, 8, 3), 51, np.uint8), np.zeros((1, 8, 8, 3), np.uint8)) == pytest.approx([0.2])


def test_psnr_of_the_hole_leaves_out_the_rest() -> None:
    truth, mask = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8)
    repair = truth.copy()
    mask[0, :2], repair[0, :2] = 1, 51  # off by 0.2 in the hole, a quarter of the picture
    assert hole_psnr(repair, truth, mask) == pytest.approx([-20 * np.log10(0.2)])
    assert psnr(repair, truth) == pytest.approx([-20 * np.log10(0.1)])


def test_psnr_equals_scikit_image(pairs: tuple[Bytes, Bytes]) -> None:
    expected = [peak_signal_noise_ratio(b, a) for a, b in zip(*pairs, strict=True)]
    assert psnr(*pairs) == pytest.approx(expected, abs=1e-9)


def test_hole_mse_of_a_full_hole_equals_scikit_image(pairs: tuple[Bytes, Bytes]) -> None:
    expected = [mean_squared_error(a / 255, b / 255) for a, b in zip(*pairs, strict=True)]
    full = np.ones(pairs[0].shape[:3], np.uint8)
    assert hole_mse(*pairs, full) == pytest.approx(expected, rel=1e-9)


def test_hole_mse_looks_inside_the_hole_only() -> None:
    truth = np.zeros((1, 4, 4, 3), np.uint8)
    repair = np.full_like(truth, 51)  # off by 0.2
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, 0, 0] = 1
    repair[0, 1:] = 255
    assert hole_mse(repair, truth, mask) == pytest.approx([0.04])


def test_hole_l1_looks_inside_the_hole_only() -> None:
    truth, mask = np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 4, 4), np.uint8)
    repair = np.full_like(truth, 51)
    mask[0, 0, :2] = 1
    repair[0, 0, 0] = 0
    assert hole_l1(repair, truth, mask) == pytest.approx([0.1])


def test_gmsd_is_the_papers(pairs: tuple[Bytes, Bytes]) -> None:
    def edges(picture: Bytes) -> npt.NDArray[np.float64]:
        grey = picture @ np.array([0.299, 0.587, 0.114])
        halved = grey.reshape(len(grey) // 2, 2, -1, 2).mean(axis=(1, 3))
        across = np.array([[1, 0, -1]] * 3) / 3
        found: npt.NDArray[np.float64] = np.hypot(*(convolve(halved, k, mode="constant") for k in (across, across.T)))
        return found

    for repair, truth, score in zip(*pairs, gmsd(*pairs), strict=True):
        a, b = edges(repair), edges(truth)
        assert score == pytest.approx(np.std((2 * a * b + 170) / (a**2 + b**2 + 170)), abs=1e-9)


def test_gmsd_minds_a_blur_more_than_other_light(photographs: list[Bytes]) -> None:
    truth = photographs[0][None, :64, :64]
    blurred = np.asarray(Image.fromarray(truth[0]).filter(ImageFilter.GaussianBlur(2)))[None]
    lighter = np.clip(truth.astype(int) + 12, 0, 255).astype(np.uint8)
    assert gmsd(truth, truth) == 0
    assert gmsd(blurred, truth)[0] > 3 * gmsd(lighter, truth)[0]


def test_perfect_pictures_and_empty_masks_poison_nothing() -> None:
    picture = np.full((1, 16, 16, 3), 77, np.uint8)
    assert psnr(picture, picture).tolist() == [PSNR_OF_PERFECT]
    assert ssim(picture, picture) == pytest.approx([1.0])
    assert hole_mse(picture, picture, np.zeros((1, 16, 16), np.uint8)).tolist() == [0.0]
    assert hole_l1(picture, picture, np.zeros((1, 16, 16), np.uint8)).tolist() == [0.0]
    assert gmsd(picture, picture).tolist() == [0.0]


@pytest.mark.parametrize("hole", ["none", "all", "corner", "pixel"])
@pytest.mark.parametrize("repaired", ["perfectly", "not at all"])
def test_every_score_of_every_picture_is_a_number(hole: str, repaired: str, photographs: list[Bytes]) -> None:
    truths = np.stack([photographs[0][:32, :32], np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)])
    masks = np.zeros((3, 32, 32), np.uint8)
    cut = {"none": (slice(0), slice(0)), "all": (slice(None), slice(None)), "corner": (slice(2), slice(2)),
           "pixel": (slice(9, 10), slice(9, 10))}[hole]  # fmt: skip
    masks[:, *cut] = 1
    repairs = truths if repaired == "perfectly" else np.where(masks[..., None] > 0, 255 - truths, truths)
    scores = score_each(repairs, truths, masks)
    assert all(np.isfinite(values).all() and len(values) == 3 for values in scores.values())
    if repaired == "perfectly" or hole == "none":
        perfect = {"ssim": 1, "psnr": PSNR_OF_PERFECT, "mse": 0, "l1": 0, "hole_ssim": 1, "hole_psnr": PSNR_OF_PERFECT,
                   "hole_mse": 0, "hole_l1": 0, "sharpness": 1, "gmsd": 0}  # fmt: skip
        assert {name: values.tolist() for name, values in scores.items()} == {
            name: pytest.approx([value] * 3) for name, value in perfect.items()
        }


def test_sharpness_is_one_for_the_truth_below_for_a_blur_and_above_for_noise(photographs: list[Bytes]) -> None:
    truth = photographs[0][None, :64, :64]
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[:, 16:48, 16:48] = 1
    blurred = np.asarray(Image.fromarray(truth[0]).filter(ImageFilter.GaussianBlur(2)))[None]
    noise = np.clip(truth + np.random.default_rng(0).normal(0, 40, truth.shape), 0, 255).astype(np.uint8)
    flat = np.full_like(truth, 128)
    assert sharpness(truth, truth, mask) == 1
    assert 0.05 < sharpness(blurred, truth, mask) < 0.8
    assert sharpness(noise, truth, mask) > 1.2
    assert sharpness(flat, flat, mask) == 1


def test_sharpness_looks_at_the_hole_alone(photographs: list[Bytes]) -> None:
    truth = photographs[0][None, :64, :64]
    mask = np.zeros((1, 64, 64), np.uint8)
    assert sharpness(np.zeros_like(truth), truth, mask) == 1  # no hole, nothing to judge
    mask[:, :8, :8] = 1
    elsewhere = truth.copy()
    elsewhere[:, 32:, 32:] = 0
    assert sharpness(elsewhere, truth, mask) == 1


def test_sharpness_of_a_known_step() -> None:
    truth, repair = (np.zeros((1, 8, 8, 3), np.uint8) for _ in range(2))
    truth[:, :, 4:], repair[:, :, 4:] = 100, 50
    mask = np.ones((1, 8, 8), np.uint8)
    assert sharpness(repair, truth, mask) == pytest.approx(0.5, abs=1e-3)


def test_mask_scores_of_known_masks() -> None:
    masks = np.zeros((4, 4, 4), np.uint8)
    found = masks.copy()
    masks[0, :2], found[0, 1:3] = 1, 1  # half of 8 pixels found, and 4 wrong ones
    masks[1, :2] = 1  # nothing found
    masks[2, :2], found[2, :2] = 1, 1  # all of it
    scores = mask_scores(found, masks)
    assert scores["mask_f1"] == pytest.approx([0.5, 0, 1, 1])
    assert scores["mask_iou"] == pytest.approx([1 / 3, 0, 1, 1])
