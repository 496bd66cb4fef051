from __future__ import annotations

import pytest
import torch

from components.hardware import HardwareError, check_kernels, choose_device
from components.inpainting.inpainter import usable_cores

CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "architectures", "cudnn", "problem"),
    [
        ((6, 0), CU126, 91002, None),
        ((6, 0), CU130, 91002, "CUDA 12.6"),
        ((8, 9), CU126, 91002, None),
        ((12, 0), CU126, 91002, "CUDA 13"),
        ((6, 0), CU126, 91700, "nvidia-cudnn-cu12==9.10.2.21"),
        ((7, 0), CU126, 91100, "cuDNN 9.11"),
        ((9, 0), CU126, 91700, None),
        ((6, 0), [], None, "built for no GPU"),
    ],
)
def test_cards_and_wheels(
    capability: tuple[int, int], architectures: list[str], cudnn: int | None, problem: str | None
) -> None:
    if problem is None:
        check_kernels(capability, architectures, cudnn)
    else:
        with pytest.raises(HardwareError, match=problem):
            check_kernels(capability, architectures, cudnn)


def test_the_cpu_gets_as_many_threads_as_cores() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert choose_device().torch.type == "cpu"
    assert torch.get_num_threads() == usable_cores()


@pytest.mark.gpu
def test_the_gpu_computes() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU on this machine")
    device = choose_device().torch
    assert torch.nn.Conv2d(3, 8, 3).to(device)(torch.rand(1, 3, 9, 9, device=device)).isfinite().all()
