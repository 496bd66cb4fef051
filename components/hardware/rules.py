"""What cards, drivers and wheels can do together, decided on plain values, so that no GPU is needed to try it.

A capability is CUDA's, ``(6, 0)`` for a P100; ``None`` stands for a CPU. Sources: the architectures of
torch's wheels and the release notes of cuDNN 9.11; "CUDA Compatibility" of NVIDIA (oldest driver of each
CUDA version); NVIDIA's "Unix graphics feature deprecation schedule" (R580 ends Maxwell, Pascal and Volta).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
CompileMode = Literal["off", "default", "reduce-overhead"]
Capability = tuple[int, int]

CUDA_12_6 = "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126"
CUDA_13 = "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130"
CUDNN = "pip install nvidia-cudnn-cu12==9.10.2.21"
ON_PURPOSE = "or set CUDA_VISIBLE_DEVICES to nothing to use the CPU on purpose"

_P100: Capability = (6, 0)
_FP16: Capability = (6, 0)
_TRITON: Capability = (7, 0)
_TURING: Capability = (7, 5)  # the oldest cards that cuDNN >= 9.11 and drivers after R580 know
_AMPERE: Capability = (8, 0)
_BLACKWELL: Capability = (10, 0)
_LAST_DRIVER = 580  # branch, for cards older than Turing
_FIRST_DRIVER = {"11": 450, "12": 525, "13": 580}  # branch, by CUDA's major version
_CUDNN_LIMIT = 91100
SMALL_NETWORKS_REPAY = 3000  # steps, measured: half a minute of compiling, some 15 ms a step saved
_MIN_SPEEDUP = 1.1  # less than this is within what machines vary, and fp32 is the safer one


class HardwareError(ValueError):
    """The machine, this installation and what is asked of them do not fit; the message names the fix."""


def check_kernels(capability: Capability, architectures: list[str], cudnn: int | None) -> None:
    """Raise ``HardwareError`` unless the wheels hold kernels for a card of this compute capability.

    Kernels run on cards of their own major version and of an equal or higher minor one. cuDNN 9.11
    (``91100``, as ``torch.backends.cudnn.version()`` counts) dropped every card below sm_75.
    """
    major, minor = capability
    built = sorted(int(name.removeprefix("sm_").rstrip("af")) for name in architectures if name.startswith("sm_"))
    if not any(arch // 10 == major and arch % 10 <= minor for arch in built):
        fix = (
            f"CUDA 13: {CUDA_13}"
            if capability >= _BLACKWELL
            else f"CUDA 12.6, which serves sm_50 to sm_90: {CUDA_12_6}"
        )
        raise HardwareError(
            f"the GPU is sm_{major}{minor}, but this torch {torch.__version__} was built for "
            f"{', '.join(f'sm_{arch}' for arch in built) or 'no GPU'}; install the one for {fix}"
        )
    if capability < _TURING and cudnn is not None and cudnn >= _CUDNN_LIMIT:
        raise HardwareError(
            f"cuDNN {cudnn // 10000}.{cudnn // 100 % 100} has no kernels for sm_{major}{minor}; install the last "
            f"that has: {CUDNN}"
        )


def check_driver(capability: Capability, driver: str) -> None:
    """Raise ``HardwareError`` where the driver, ``"590.44.01"`` say, is too new for an old card.

    A driver that NVML does not name (empty) passes.
    """
    branch = _branch(driver)
    if capability < _TURING and branch > _LAST_DRIVER:
        raise HardwareError(
            f"driver {driver} no longer serves sm_{capability[0]}{capability[1]}; install branch R{_LAST_DRIVER}, "
            "the last for Maxwell, Pascal and Volta (on GKE: a node image with that driver)"
        )


def explain_no_cuda(torch_cuda: str | None, driver: str, num_cards: int, cause: str) -> str:
    """Why torch sees no GPU on a machine that has one or was asked for one, and what to do about it.

    Parameters
    ----------
    torch_cuda:
        CUDA version of the wheel, ``"12.6"``; ``None`` for a CPU build.
    driver, num_cards:
        As NVML tells them; empty and 0 where it does not answer.
    cause:
        What torch says when it is made to start CUDA.
    """
    if torch_cuda is None:
        return f"this torch {torch.__version__} is built for CPUs alone; install one for CUDA: {CUDA_12_6}"
    if not driver:
        return (
            "the NVIDIA driver does not answer; install it on the machine (restart after an update of it), and let "
            "the container see the card: docker run --gpus all, in Kubernetes a limit nvidia.com/gpu: 1"
        )
    oldest = _FIRST_DRIVER.get(torch_cuda.split(".")[0], 0)
    if _branch(driver) < oldest:
        other = f", or a torch that driver R{_FIRST_DRIVER['12']} can run: {CUDA_12_6}" if oldest > 525 else ""
        return f"driver {driver} is too old for CUDA {torch_cuda}; install branch R{oldest} or newer{other}"
    if not num_cards and _branch(driver) > _LAST_DRIVER:
        return (
            f"driver {driver} finds no card that it serves; a P100, V100 or older needs branch R{_LAST_DRIVER} at most"
        )
    return (
        f"driver {driver} finds {num_cards} GPU(s), but CUDA does not start: {cause}; see that CUDA_VISIBLE_DEVICES "
        "names a card that is there, then restart the container or the machine"
    )


def precision_problem(precision: Precision, capability: Capability | None, cpu_bf16: bool) -> str:
    """Why a precision cannot be had here and what to set instead; empty where it can.

    ``cpu_bf16`` says whether the CPU has bf16 instructions (AVX512-BF16 or AMX). GPUs before Ampere
    emulate bf16, slower than fp32.
    """
    if precision == "bf16" and capability is None and not cpu_bf16:
        return "this CPU has no bf16 instructions (AVX512-BF16 or AMX); set train_precision=fp32"
    if precision == "bf16" and capability is not None and capability < _AMPERE:
        other = " or, for half the memory, train_precision=fp16" if capability >= _FP16 else ""
        return f"bf16 begins with Ampere (sm_80), this is sm_{_digits(capability)}; set train_precision=fp32{other}"
    if precision == "fp16" and capability is None:
        return "fp16 needs a GPU; set train_precision=fp32, or auto for bf16 on the CPUs where that is faster"
    if precision == "fp16" and capability is not None and capability < _FP16:
        return f"fp16 begins with Pascal (sm_60), this is sm_{_digits(capability)}; set train_precision=fp32"
    return ""


def pick_precision(
    asked: Literal["auto", "fp32", "bf16", "fp16"],
    capability: Capability | None,
    cpu_bf16: bool,
    speedup: Callable[[], float],
) -> tuple[Precision, str]:
    """The precision to compute in, and why. Raises ``HardwareError`` where what is asked cannot be had.

    ``speedup`` measures how many times faster than fp32 this CPU is in bf16; it is called only where
    that decides. fp16 is never picked unasked: it needs loss scaling and can still diverge.
    """
    if asked != "auto":
        problem = precision_problem(asked, capability, cpu_bf16)
        if problem:
            raise HardwareError(f"train_precision={asked} cannot be had here: {problem}")
        return asked, "as asked"
    problem = precision_problem("bf16", capability, cpu_bf16)
    if problem:
        return "fp32", problem.split(";")[0]
    if capability is not None:
        return "bf16", f"sm_{_digits(capability)} has bf16 tensor cores"
    measured = speedup()
    if measured >= _MIN_SPEEDUP:
        return "bf16", f"measured {measured:.1f}x as fast as fp32"
    return "fp32", f"bf16 measured {measured:.1f}x as fast"


def compile_problem(mode: CompileMode, capability: Capability | None, toolchain: Callable[[], str]) -> str:
    """Why a compile mode does not work here; empty where it does.

    torch raises for a card that Triton does not serve only when the compiled model first runs, hence
    this look beforehand. ``toolchain`` says what the compilers lack (empty: nothing); it is called last.
    """
    if mode == "off":
        return ""
    if mode == "reduce-overhead" and capability is None:
        return "CUDA graphs need a GPU"
    if capability is not None and capability < _TRITON:
        return f"Triton, torch.compile's backend, begins with sm_70, this is sm_{_digits(capability)}"
    return toolchain()


def pick_compile(
    asked: Literal["auto", "off", "on"],
    capability: Capability | None,
    num_steps: int,
    repaid_after: float,
    toolchain: Callable[[], str],
) -> tuple[CompileMode, str]:
    """The compile mode to train with, and why; ``reduce-overhead`` means CUDA graphs.

    Raises ``HardwareError`` where compiling is asked for and does not work.
    """
    if asked == "off":
        return "off", "as asked"
    if asked == "auto" and capability is None and num_steps < repaid_after:
        enough = f"{repaid_after:.0f} do" if math.isfinite(repaid_after) else "it makes these networks no faster"
        return "off", f"{num_steps} steps do not repay half a minute of compiling, {enough}"
    mode: CompileMode = "default" if capability is None else "reduce-overhead"
    problem = compile_problem(mode, capability, toolchain)
    if problem and asked == "on":
        raise HardwareError(f"train_compile=on does not work here: {problem}; mend that or set train_compile=off")
    if problem:
        return "off", problem
    return mode, "as asked" if asked == "on" else "with CUDA graphs" if capability else f"{num_steps} steps repay it"


def pick_channels_last(capability: Capability | None, precision: Precision, compile_mode: CompileMode) -> bool:
    """Whether tensors lie in memory with channels last.

    GPUs: from Volta on, whose tensor cores want it. CPUs, measured on a small U-Net: in eager bf16 the
    contiguous layout is faster, in fp32 and compiled the other.
    """
    if capability is not None:
        return capability >= _TRITON
    return precision == "fp32" or compile_mode != "off"


def card_note(capability: Capability | None) -> str:
    """What to know about a card beyond that it works; empty for most."""
    if capability != _P100:
        return ""
    return (
        f"a P100 lives on CUDA 12.6 builds of torch up to 2.14, cuDNN below 9.11 and drivers up to R{_LAST_DRIVER}; "
        "Compute Engine ended its P100s on 2026-09-15 (there, take an L4)"
    )


def _branch(driver: str) -> int:
    """The branch of a driver: 580 for ``"580.65.06"``, 0 where there is none."""
    major = driver.split(".")[0]
    return int(major) if major.isdigit() else 0


def _digits(capability: Capability) -> str:
    return "".join(str(number) for number in capability)
