from __future__ import annotations

import numpy as np
import pytest
import torch

from components.inpainting.batches import Batches
from components.inpainting.dataset import Shards
from components.inpainting.images import Bytes
from components.inpainting.networks.biharmonic import BiharmonicFill

CPU = torch.device("cpu")


@pytest.fixture
def pictures(photographs: list[Bytes]) -> Shards:
    return Shards([np.stack([photo[:32, :32] for photo in photographs])])


@pytest.fixture
def masks() -> Bytes:
    return (np.random.default_rng(0).random((64, 32, 32)) < 0.2).astype(np.uint8)


def test_a_batch_depends_on_the_seed_and_its_number_alone(pictures: Shards, masks: Bytes) -> None:
    one, same, other = (Batches(pictures, masks, CPU, seed, 512) for seed in (0, 0, 1))
    straight = [one[number] for number in range(7)]
    assert torch.equal(straight[5].truth, same[5].truth)  # without the five before it
    assert torch.equal(straight[5].mask, same[5].mask)
    assert not torch.equal(straight[5].truth, straight[4].truth)
    assert not torch.equal(straight[5].truth, other[5].truth)


def test_every_picture_gets_a_mask_of_its_own_and_starts_from_what_is_known(pictures: Shards, masks: Bytes) -> None:
    batch = Batches(pictures, masks, CPU, 0, 16)[0]
    assert batch.truth.shape == batch.start.shape == (16, 3, 32, 32)
    assert batch.mask.shape == (16, 1, 32, 32)
    assert 0 <= batch.truth.min() <= batch.truth.max() <= 1
    assert len({mask.numpy().tobytes() for mask in batch.mask}) > 8
    assert torch.equal(batch.start, batch.truth * (1 - batch.mask))


@pytest.mark.parametrize("thorough", [False, True])
def test_a_varied_picture_starts_from_the_fill_of_itself(pictures: Shards, masks: Bytes, thorough: bool) -> None:
    fill = BiharmonicFill(num_levels=4)
    batches = Batches(pictures, masks, CPU, 0, 8, fill=fill, reuse=4, thorough=thorough)
    for number in (0, 1, 100):
        batch = batches[number]
        expected = fill(batch.truth * (1 - batch.mask), batch.mask)
        assert torch.allclose(batch.start, expected, atol=2e-4)


def test_reused_draws_come_back_varied(pictures: Shards, masks: Bytes) -> None:
    batches = Batches(pictures, masks, CPU, 0, 256, reuse=4)
    holes = [sorted(mask.sum().item() for mask in batches[number].mask) for number in range(5)]
    assert holes[0] == holes[1] == holes[2] == holes[3] != holes[4]
    assert not torch.equal(batches[0].truth, batches[1].truth)


def test_mirrored_pictures_stand_upright_and_keep_their_colours(pictures: Shards, masks: Bytes) -> None:
    truths = torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2) / 255
    seen = [variant for truth in truths for variant in (truth, truth.flip(2))]
    for picture in Batches(pictures, masks, CPU, 0, 32)[0].truth:
        assert any(torch.allclose(picture, variant) for variant in seen)


def test_thorough_variation_keeps_structure(photographs: list[Bytes], masks: Bytes) -> None:
    image = photographs[0][None, :32, :32]
    batches = Batches(Shards([image]), masks, CPU, 0, 4, thorough=True)
    drawn = torch.cat([batches[number].truth for number in range(20)])
    spread = torch.from_numpy(image / 255).std(dim=(1, 2)).sort().values[0]
    assert torch.allclose(drawn.std(dim=(2, 3)).sort(dim=1).values, spread.float(), atol=1e-3)
    assert len({d.mean().item() for d in drawn.round(decimals=5)}) > 1


def test_processes_share_a_batch_row_by_row(pictures: Shards, masks: Bytes) -> None:
    batch = Batches(pictures, masks, CPU, 0, 8)[0]
    shares = [batch.share(rank, 2) for rank in (0, 1)]
    assert torch.equal(torch.cat([share.truth for share in shares]), batch.truth)
    assert torch.equal(torch.cat([share.mask for share in shares]), batch.mask)
