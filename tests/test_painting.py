from __future__ import annotations

import pytest
import torch

from components.inpainting.painting import paint_damage


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    mask = torch.zeros(64, 1, 32, 32)
    mask[:, :, 8:20, 4:24] = 1
    return torch.rand(64, 3, 32, 32, generator=random), mask


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_known_pixels_stay_and_the_hole_is_damaged(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    truth, mask = batch
    damaged = paint_damage(truth, mask, seeded(0))
    assert torch.equal(damaged * (1 - mask), truth * (1 - mask))
    assert 0 <= damaged.min() <= damaged.max() <= 1
    changed = ((damaged - truth).abs() * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))
    assert (changed > 0.1).all()


def test_the_same_seed_paints_the_same(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    one, same, other = (paint_damage(*batch, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_paint_is_of_many_kinds(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    truth, mask = batch
    hole = paint_damage(truth, mask, seeded(0))[:, :, 10:18, 6:22]
    roughness = hole.std(dim=(2, 3)).mean(dim=1)
    assert (roughness < 0.05).sum() > 8  # smooth paint
    assert (roughness > 0.2).sum() > 8  # noise, and other pictures, noise here too
    brightness = hole.mean(dim=(1, 2, 3))
    assert (brightness > 0.85).any()
    assert (brightness < 0.15).any()
