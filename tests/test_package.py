from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from components.inpainting.dataset import PreparedDataset
from components.inpainting.export import export_onnx
from components.inpainting.images import Bytes
from components.inpainting.inpainter import open_classical, open_onnx, wrap_generator
from components.inpainting.networks import build_generator
from components.package.parity import ParityError, check_parity, golden_cases


def test_golden_cases_are_real_pictures_of_several_sizes_under_every_family(dataset: Path) -> None:
    cases = golden_cases(PreparedDataset.open(dataset), open_classical("biharmonic"))
    assert len(cases) == 12
    assert {case.mask.shape for case in cases} == {(64, 64), (102, 102), (192, 262)}
    assert all(case.mask.any() and case.image.shape[:2] == case.mask.shape for case in cases)


def test_the_papers_network_exports_and_repairs_alike(dataset: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = build_generator("context_encoder").eval()
    export_onnx(generator, tmp_path / "generator.onnx")
    cases = golden_cases(PreparedDataset.open(dataset), wrap_generator(generator))
    rows = check_parity(open_onnx(tmp_path / "generator.onnx", generator.stride), cases)
    assert [row.case for row in rows] == [case.name for case in cases]


def test_an_export_that_repairs_otherwise_is_refused(dataset: Path) -> None:
    cases = golden_cases(PreparedDataset.open(dataset), open_classical("biharmonic"))[:1]

    def darker(image: Bytes, mask: Bytes) -> Bytes:
        repaired = open_classical("biharmonic")(image, mask).astype(int)
        return np.clip(repaired - 3 * mask[..., None], 0, 255).astype(np.uint8)

    with pytest.raises(ParityError, match="differs from torch by 3 of 255"):
        check_parity(darker, cases)
