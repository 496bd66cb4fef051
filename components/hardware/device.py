"""Which device a step computes on, and what driver and card it has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from components.hardware.rules import CUDNN, Capability, HardwareError, check_driver, check_kernels
from components.inpainting.inpainter import usable_cores


@dataclass(frozen=True)
class Device:
    """A device to compute on.

    Attributes
    ----------
    torch:
        ``cpu`` or ``cuda:<index>``.
    description:
        How to name it to a person.
    capability:
        CUDA's compute capability, ``(6, 0)`` for a P100; ``None`` for a CPU.
    facts:
        What to log about it: ``device``, ``threads`` and ``torch``, of a GPU also ``capability``,
        ``driver``, ``memory_gb``, ``cuda`` and ``cudnn``.
    """

    torch: torch.device
    description: str
    capability: Capability | None = None
    facts: Mapping[str, str] = field(default_factory=dict, compare=False)


def choose_device(local_rank: int = 0, local_world_size: int = 1) -> Device:
    """The GPU of this process where there is one that works, else the CPU.

    ``local_rank`` is this process's number among the ``local_world_size`` that share the machine, as
    torchrun counts them: it gets the GPU of that number, and its share of the cores as threads.

    Raises ``HardwareError`` when there is a GPU that this installation cannot drive, falling back to
    the CPU would waste the GPU node in silence, and when there are more processes than GPUs.
    """
    num_threads = max(1, usable_cores() // local_world_size)
    torch.set_num_threads(num_threads)
    facts = {"threads": str(num_threads), "torch": torch.__version__}
    if torch.cuda.is_available():
        return _choose_card(local_rank, facts)
    description = f"CPU, {num_threads} thread{'s' if num_threads > 1 else ''}"
    return Device(torch.device("cpu"), description, None, {"device": "CPU", **facts})


def _choose_card(index: int, facts: dict[str, str]) -> Device:
    num_cards = torch.cuda.device_count()
    if index >= num_cards:
        raise HardwareError(
            f"process {index} of this machine has no GPU of its own, there are {num_cards}; "
            f"start at most that many: torchrun --nproc-per-node={num_cards}"
        )
    capability, cudnn, (driver, _) = torch.cuda.get_device_capability(index), _cudnn_version(), ask_driver()
    check_kernels(capability, torch.cuda.get_arch_list(), cudnn)
    check_driver(capability, driver)
    torch.cuda.set_device(index)
    name, memory = torch.cuda.get_device_name(index), torch.cuda.mem_get_info(index)[1]
    facts = {
        "device": name,
        "capability": f"{capability[0]}.{capability[1]}",
        "driver": driver or "unknown",
        "memory_gb": f"{memory / 1e9:.1f}",
        "cuda": torch.version.cuda or "unknown",
        "cudnn": str(cudnn or "none"),
        **facts,
    }
    return Device(torch.device("cuda", index), f"{name}, {memory / 1e9:.0f} GB", capability, facts)


def _cudnn_version() -> int | None:
    try:
        version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    except RuntimeError as error:  # an older library than torch was built with, found first on the library path
        raise HardwareError(
            f"cuDNN does not fit this torch ({first_line(error)}); install the one it names: {CUDNN}"
        ) from None
    return version


def ask_driver() -> tuple[str, int]:
    """Version of the NVIDIA driver, ``"580.65.06"``, and how many cards it serves; empty and 0 where NVML is silent."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no driver, no permission, no package: NVML has an error class for each
        return "", 0
    try:
        return str(pynvml.nvmlSystemGetDriverVersion()), int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return "", 0
    finally:
        pynvml.nvmlShutdown()


def card_present(num_cards: int) -> bool:
    """Whether this machine or container has an NVIDIA card, usable or not.

    Asked are NVML (as ``nvidia-smi`` does), the device files and the variable by which Kubernetes'
    device plugin hands out a card. ``NVIDIA_VISIBLE_DEVICES=all`` means nothing: CUDA's images set it
    on every machine. ``CUDA_VISIBLE_DEVICES`` set to nothing or -1 hides the cards on purpose.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset") in ("", "-1"):
        return False
    handed_out = os.environ.get("NVIDIA_VISIBLE_DEVICES", "").startswith(("GPU-", "MIG-"))
    return num_cards > 0 or handed_out or any(Path("/dev").glob("nvidia[0-9]*"))


def first_line(error: Exception) -> str:
    """What an error says before it goes into detail."""
    return str(error).strip().split("\n")[0]
