"""How a training computes on its device: precision, compile mode and memory layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from components.hardware.bf16 import bf16_speedup, cpu_has_bf16
from components.hardware.device import Device
from components.hardware.rules import (
    SMALL_NETWORKS_REPAY,
    CompileMode,
    HardwareError,
    Precision,
    compile_problem,
    pick_channels_last,
    pick_compile,
    pick_precision,
    precision_problem,
)
from components.hardware.toolchain import cpp_problem, triton_problem

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """How to compute on a device.

    Attributes
    ----------
    precision:
        What ``autocast`` computes in; weights stay fp32. fp16 needs a ``torch.amp.GradScaler``.
    compile:
        ``off``, or the mode for ``torch.compile``; ``reduce-overhead`` means CUDA graphs.
    channels_last:
        Whether images and convolution weights lie in memory channels last.
    reason:
        Why these, in a few words for a person.
    """

    device: Device
    precision: Precision
    compile: CompileMode
    channels_last: bool
    reason: str = field(default="", compare=False)

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and of convolution weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def settings(self) -> dict[str, str | bool]:
        """What a checkpoint keeps, for ``restore_compute``."""
        return {"precision": self.precision, "compile": self.compile, "channels_last": self.channels_last}

    @property
    def tags(self) -> dict[str, str]:
        """Every choice and every fact of the device, as tags for MLflow."""
        choices = {
            "precision": self.precision,
            "compile": self.compile,
            "memory_format": "channels_last" if self.channels_last else "contiguous",
            "reason": self.reason,
        }
        return {f"hardware.{name}": value for name, value in {**self.device.facts, **choices}.items()}

    def autocast(self) -> torch.autocast:
        """A fresh context that computes in the precision; in fp32 it changes nothing."""
        dtype = _DTYPES.get(self.precision, torch.bfloat16)
        return torch.autocast(self.device.torch.type, dtype, enabled=self.precision != "fp32")


def choose_compute(
    device: Device,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    compile_mode: Literal["auto", "off", "on"],
    num_steps: int,
    repaid_after: float = SMALL_NETWORKS_REPAY,
) -> Compute:
    """How to train ``num_steps`` steps on a device; ``precision`` and ``compile_mode`` as the parameters ask.

    ``repaid_after`` steps earn back what compiling takes a CPU; infinity where it makes the networks no faster.
    On a CPU with bf16 instructions, ``auto`` measures for half a second, so two machines, or two ranks,
    may choose differently: one rank chooses, the others ``restore_compute`` its settings, and so does a
    training that resumes. Raises ``HardwareError`` with the fix for what is asked and cannot be had.
    """
    capability = device.capability
    chosen, why = pick_precision(precision, capability, capability is None and cpu_has_bf16(), bf16_speedup)
    mode, why_mode = pick_compile(compile_mode, capability, num_steps, repaid_after, _toolchain(device))
    layout = pick_channels_last(capability, chosen, mode)
    return Compute(device, chosen, mode, layout, f"{chosen}: {why}; compile {mode}: {why_mode}")


def restore_compute(device: Device, settings: Mapping[str, Any]) -> Compute:
    """Compute as the ``settings`` of an earlier ``Compute`` say.

    Raises ``HardwareError`` that names the parameter to set where this device cannot.
    """
    known: dict[str, Any] = dict.fromkeys(("precision", "compile", "channels_last")) | dict(settings)
    precision, mode, layout = known["precision"], known["compile"], known["channels_last"]
    if precision not in get_args(Precision) or mode not in get_args(CompileMode) or not isinstance(layout, bool):
        raise HardwareError(
            f"the checkpoint computes with {dict(settings)}, which this version does not know; start anew"
        )
    cpu_bf16 = device.capability is None and cpu_has_bf16()
    problem = precision_problem(precision, device.capability, cpu_bf16)
    if problem:
        raise _cannot_resume(device, f"in {precision}", f"{problem} to train anew")
    problem = compile_problem(mode, device.capability, _toolchain(device))
    if problem:
        raise _cannot_resume(
            device, f"compiled ({mode})", f"{problem}; mend that, or set train_compile=off to train anew"
        )
    return Compute(device, precision, mode, layout, "as the training began")


def _cannot_resume(device: Device, how: str, problem: str) -> HardwareError:
    return HardwareError(
        f"the training to resume began {how}, which {device.description} cannot continue ({problem}); "
        "or resume it on a machine like the first"
    )


def _toolchain(device: Device) -> Callable[[], str]:
    return cpp_problem if device.capability is None else triton_problem
