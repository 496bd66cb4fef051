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
