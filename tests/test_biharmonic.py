from __future__ import annotations

import numpy as np
import pytest
import torch

from components.inpainting.classical import repair
from components.inpainting.images import Bytes, composite, resize, to_bytes, to_planes
from components.inpainting.masks import MaskMixture
from components.inpainting.metrics import psnr
from components.inpainting.networks.biharmonic import BiharmonicFill

FAMILIES = ["box", "strokes", "scratches", "text"]


def fill(images: Bytes, masks: Bytes, num_iterations: int) -> Bytes:
    holes = torch.from_numpy(masks[:, None].astype(np.float32))
    filled = BiharmonicFill(num_iterations=num_iterations)(torch.from_numpy(to_planes(images)), holes)
    return composite(images, to_bytes(filled.numpy()), masks)


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, photographs: list[Bytes]) -> tuple[str, Bytes, Bytes, Bytes]:
    """A family, real photographs, holes, and what scikit-image makes of them."""
    truths = np.stack([resize(photo[:128, :128], 64, 64) for photo in photographs] * 4)
    masks = MaskMixture({request.param: 1}, 64).draw(len(truths), np.random.default_rng(0))
    expected = np.stack([repair("biharmonic", i, m) for i, m in zip(truths, masks, strict=True)])
    return request.param, truths, masks, expected


def test_converges_to_scikit_images_fill_on_real_photographs(case: tuple[str, Bytes, Bytes, Bytes]) -> None:
    family, truths, masks, expected = case

    def error(num_iterations: int) -> float:
        difference = np.abs(fill(truths, masks, num_iterations).astype(int) - expected)[masks == 1]
        return float(difference.mean())

    coarse, fine = error(6), error(300)
    assert fine < coarse / 3
    # scikit-image closes the picture's border differently, which wide holes that touch it show
    assert fine < (0.03 if family in ("scratches", "text") else 2.5)


def test_default_is_level_with_scikit_image_in_thin_holes(case: tuple[str, Bytes, Bytes, Bytes]) -> None:
    family, truths, masks, expected = case
    slack = 0.25 if family in ("scratches", "text") else 1.0
    assert psnr(fill(truths, masks, 6), truths).mean() > psnr(expected, truths).mean() - slack


def test_continues_a_plane_exactly() -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    plane = ((rows + 2 * columns) / 200).expand(1, 3, 64, 64)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:44, 30:33] = 1
    assert torch.allclose(BiharmonicFill(num_iterations=60)(plane * (1 - mask), mask), plane, atol=1e-4)


def test_ignores_what_is_inside_the_hole_and_keeps_what_is_outside() -> None:
    image, mask = torch.rand(2, 3, 32, 48), (torch.rand(2, 1, 32, 48) > 0.7).float()
    one, other = (BiharmonicFill()(torch.where(mask > 0, hole, image), mask) for hole in (0.0, 0.9))
    assert torch.equal(one, other)
    assert torch.equal(one * (1 - mask), image * (1 - mask))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_empty_or_a_full_hole_gives_finite_pixels(share: float) -> None:
    image, mask = torch.rand(1, 3, 32, 32), torch.full((1, 1, 32, 32), share)
    assert BiharmonicFill()(image, mask).isfinite().all()
