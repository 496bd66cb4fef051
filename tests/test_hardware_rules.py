"""The rules of ``hardware`` on plain values, and the compilers it looks for."""

from __future__ import annotations

import re
import shutil
import stat
from pathlib import Path

import pytest

from components.hardware import HardwareError, check_driver, check_kernels, cpp_problem
from components.hardware.rules import Capability, explain_no_cuda
from components.hardware.toolchain import triton_problem

CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
P100, V100, T4, L4, H100, BLACKWELL = (6, 0), (7, 0), (7, 5), (8, 9), (9, 0), (12, 0)


@pytest.mark.parametrize(
    ("capability", "architectures", "cudnn", "problem"),
    [
        (P100, CU126, 91002, None),
        (P100, CU130, 91002, "CUDA 12.6.*whl/cu126"),
        (L4, CU126, 91002, None),
        (BLACKWELL, CU126, 91002, "CUDA 13.*whl/cu130"),
        (BLACKWELL, CU130, 91300, None),
        (P100, CU126, 91700, "nvidia-cudnn-cu12==9.10.2.21"),
        (V100, CU126, 91100, "cuDNN 9.11"),
        (H100, CU126, 91700, None),
        (P100, [], None, "built for no GPU"),
    ],
)
def test_cards_and_wheels(
    capability: Capability, architectures: list[str], cudnn: int | None, problem: str | None
) -> None:
    if problem is None:
        check_kernels(capability, architectures, cudnn)
    else:
        with pytest.raises(HardwareError, match=problem):
            check_kernels(capability, architectures, cudnn)


@pytest.mark.parametrize(("capability", "driver"), [(P100, "590.44.01"), (V100, "595.10")])
def test_drivers_too_new_for_old_cards(capability: Capability, driver: str) -> None:
    with pytest.raises(HardwareError, match="install branch R580"):
        check_driver(capability, driver)


@pytest.mark.parametrize(("capability", "driver"), [(P100, "580.95.05"), (T4, "590.44.01"), (P100, "")])
def test_drivers_that_serve_the_card(capability: Capability, driver: str) -> None:
    check_driver(capability, driver)


@pytest.mark.parametrize(
    ("torch_cuda", "driver", "num_cards", "fix"),
    [
        (None, "580.65.06", 1, "whl/cu126"),
        ("12.6", "", 0, "--gpus all"),
        ("12.6", "470.82.01", 1, "R525 or newer$"),
        ("13.0", "550.54.15", 1, "R580 or newer, or .*whl/cu126"),
        ("12.6", "590.44.01", 0, "R580 at most"),
        ("12.6", "590.44.01", 1, "the cause; see that CUDA_VISIBLE_DEVICES"),
        ("12.6", "580.65.06", 0, "the cause"),
    ],
)
def test_why_torch_sees_no_gpu(torch_cuda: str | None, driver: str, num_cards: int, fix: str) -> None:
    assert re.search(fix, explain_no_cuda(torch_cuda, driver, num_cards, "the cause"))


def test_a_compiler_is_tried_not_just_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert cpp_problem() == "there is no compiler 'no-such-compiler'; install g++, or name yours in CXX"
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho '<stdin>:1:10: fatal error: Python.h: No such file' >&2\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(broken))
    assert cpp_problem().endswith("Python.h: No such file); install Python's headers (python3.11-dev)")


def test_triton_needs_itself_and_a_c_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert triton_problem().startswith("Triton is not installed")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert triton_problem() == "there is no compiler 'no-such-compiler'; install gcc, or name yours in CC"


@pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("g++"), reason="no gcc and g++ on this machine")
def test_compilers_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    assert (cpp_problem(), triton_problem()) == ("", "")
