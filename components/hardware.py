"""Which device a step computes on, and whether this installation can use it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from components.inpainting.inpainter import usable_cores


class HardwareError(ValueError):
    """The card and this installation of torch do not fit; the message names the fix."""


@dataclass(frozen=True)
class Device:
    """A device to compute on, and how to name it to a person."""

    torch: torch.device
    description: str


def choose_device() -> Device:
    """The GPU where there is one that works, else the CPU with as many threads as cores it may use.

    Raises ``HardwareError`` when there is a GPU that this installation cannot drive: falling back to
    the CPU would waste the GPU node in silence.
    """
    if torch.cuda.is_available():
        check_kernels(torch.cuda.get_device_capability(), torch.cuda.get_arch_list(), torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
        return Device(torch.device("cuda"), torch.cuda.get_device_name())
    num_threads = usable_cores()
    torch.set_num_threads(num_threads)
    return Device(torch.device("cpu"), f"CPU, {num_threads} threads")


def check_kernels(capability: tuple[int, int], architectures: list[str], cudnn: int | None) -> None:
    """Raise ``HardwareError`` unless the wheels hold kernels for a card of this compute capability.

    Kernels run on cards of their own major version and of an equal or higher minor one. cuDNN 9.11
    dropped every card below sm_75.
    """
    major, minor = capability
    built = sorted(int(name.removeprefix("sm_").rstrip("af")) for name in architectures if name.startswith("sm_"))
    if not any(arch // 10 == major and arch % 10 <= minor for arch in built):
        raise HardwareError(
            f"the GPU is sm_{major}{minor}, but this torch {torch.__version__} was built for "
            f"{', '.join(f'sm_{arch}' for arch in built) or 'no GPU'}; install torch 2.13.0 built for CUDA 12.6 "
            "(sm_50 to sm_90), or for CUDA 13 on newer cards"
        )
    if (major, minor) < (7, 5) and cudnn is not None and cudnn >= 91100:
        raise HardwareError(
            f"cuDNN {cudnn // 10000}.{cudnn // 100 % 100} has no kernels for sm_{major}{minor}; "
            "install nvidia-cudnn-cu12==9.10.2.21"
        )
