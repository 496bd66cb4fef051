from __future__ import annotations

import math

import pytest
import torch

from components.inpainting import losses
from components.inpainting.metrics import ssim_of_planes

ZERO = [torch.zeros(4, 1)]
SURE, UNSURE = [torch.full((4, 1), 50.0)], [torch.full((4, 1), -50.0)]


def test_cross_entropy_of_an_undecided_discriminator_is_log_two() -> None:
    assert losses.cross_entropy_d(ZERO, ZERO).item() == pytest.approx(math.log(2))
    assert losses.cross_entropy_g(ZERO).item() == pytest.approx(math.log(2))
    assert losses.cross_entropy_d(SURE, UNSURE).item() == pytest.approx(0, abs=1e-6)


def test_hinge_is_one_when_undecided_and_zero_beyond_the_margin() -> None:
    assert losses.hinge_d(ZERO, ZERO).item() == 1
    assert losses.hinge_d(SURE, UNSURE).item() == 0
    assert losses.hinge_g(SURE).item() == -50


def test_both_paths_weigh_the_same() -> None:
    assert losses.cross_entropy_d(SURE + ZERO, UNSURE + ZERO).item() == pytest.approx(math.log(2) / 2)


def test_accuracy_counts_right_judgements() -> None:
    assert losses.accuracy(SURE, UNSURE).item() == 1
    assert losses.accuracy(UNSURE, SURE).item() == 0
    assert losses.accuracy(SURE, SURE).item() == 0.5


def test_hole_mse_is_on_minus_one_to_one_and_inside_the_hole() -> None:
    truth, repair = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.25)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0, :] = 1
    repair[..., 1:, :] = 1
    assert losses.hole_mse(repair, truth, mask, truth).item() == pytest.approx(0.25)


def test_relative_l1_is_one_when_level_with_the_fill_and_weighs_holes_alike() -> None:
    truth, fill = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.8)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, 0, 0] = 1
    mask[1] = 1
    assert losses.relative_l1(fill, truth, mask, fill).item() == pytest.approx(1, abs=0.01)
    half = torch.stack([truth[0], fill[1]])
    assert losses.relative_l1(half, truth, mask, fill).item() == pytest.approx(0.5, abs=0.01)


def test_relative_log_mse_is_zero_when_level_with_the_fill_and_counts_in_decibels() -> None:
    truth, fill = torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.8)
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1
    assert losses.relative_log_mse(fill, truth, mask, fill).item() == 0
    decibels = 10 / math.log(10) * losses.relative_log_mse(fill / 10**0.5, truth, mask, fill).item()
    assert decibels == pytest.approx(-10, abs=0.01)


def test_a_faithful_repair_is_like_the_truth_in_every_respect() -> None:
    random = torch.Generator().manual_seed(0)
    truth, fill = torch.rand(2, 3, 16, 16, generator=random), torch.full((2, 3, 16, 16), 0.5)
    mask = torch.ones(2, 1, 16, 16)
    level, perfect = losses.faithful(fill, truth, mask, fill).item(), losses.faithful(truth, truth, mask, fill).item()
    assert level == pytest.approx(1 + 5 * (1 - ssim_of_planes(fill, truth).mean().item()), abs=0.02)
    assert perfect == pytest.approx(0.5 * math.log(1e-5 * 12), abs=0.1)  # the MSE of a guess at random noise is 1/12


def test_mask_loss_is_small_for_the_true_mask_and_large_for_its_opposite() -> None:
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :3] = 1
    sure = 20 * (mask * 2 - 1)
    assert losses.mask_loss(sure, mask) < 0.01
    assert losses.mask_loss(-sure, mask) > 10
    assert losses.mask_loss(torch.zeros_like(mask), mask).item() == pytest.approx(math.log(2) + 32 / 57, abs=1e-3)


def test_whole_l1_weighs_damage_and_the_rest_alike() -> None:
    truth, mask = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., :1, :1] = 1
    assert losses.whole_l1(truth + 0.5 * mask, truth, mask, truth).item() == pytest.approx(0.5)
    assert losses.whole_l1(truth + 0.5 * (1 - mask), truth, mask, truth).item() == pytest.approx(0.5)


def hole(*rows: int) -> torch.Tensor:
    """Masks of 8x8 pixels with a hole over the given number of upper rows, one per picture."""
    mask = torch.zeros(len(rows), 1, 8, 8)
    for picture, count in zip(mask, rows, strict=True):
        picture[:, :count] = 1
    return mask


def test_relativistic_is_log_two_when_undecided_and_zero_when_the_better_is_preferred() -> None:
    undecided, high = [torch.zeros(2, 1, 4, 4)], [torch.full((2, 1, 4, 4), 50.0)]
    mask = hole(4, 2)
    assert losses.relativistic(undecided, undecided, mask).item() == pytest.approx(math.log(2))
    assert losses.relativistic(high, undecided, mask).item() == pytest.approx(0, abs=1e-6)
    assert losses.relativistic(undecided, high, mask).item() == pytest.approx(50)
    assert losses.preference(high, undecided, mask).item() == 1
    assert losses.preference(undecided, high, mask).item() == 0


def test_patches_outside_the_hole_do_not_count_and_holes_weigh_the_same() -> None:
    better, worse = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    worse[0, :, 2:] = 50  # wrong, but outside the first picture's hole
    worse[1, :, :1] = 50  # wrong in all of the second's, a quarter of its rows
    mask = hole(4, 2)
    assert losses.relativistic([better], [worse], mask).item() == pytest.approx((math.log(2) + 50) / 2)
    assert losses.preference([better + 1], [worse], mask).item() == 0.5


def test_feature_matching_is_a_share_of_the_truths_features_and_of_the_hole() -> None:
    truth, other = [torch.full((2, 3, 4, 4), 2.0)], [torch.full((2, 3, 4, 4), 2.0)]
    mask = hole(4, 2)
    assert losses.feature_matching(other, truth, mask).item() == 0
    other[0][0, :, :2] = 1.0  # half as strong in the hole, which is half of the first picture
    other[0][1, :, :1] = 0.0  # none in the hole, a quarter of the second
    other[0].requires_grad_(True)
    loss = losses.feature_matching(other, truth, mask)
    loss.backward()
    assert loss.item() == pytest.approx((0.5 + 1) / 2)
    assert other[0].grad is not None
    assert (other[0].grad[0, :, :2] < 0).all()
