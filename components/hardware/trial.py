"""A trial in seconds before hours of work: is the GPU there, free, and does it compute right?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from components.hardware.device import Device, ask_driver, card_present, first_line
from components.hardware.rules import ON_PURPOSE, HardwareError, card_note, explain_no_cuda

_MIN_FREE_BYTES = 1 << 30
_TOLERANCE = 1e-2  # of the largest value: ten times what TF32 and fp16 round, far from any wrong kernel
_TRIALS = ("a convolution", "a convolution's gradient", "an fp16 matrix product")


def preflight(device: Device, require_gpu: bool = False) -> dict[str, str]:
    """Try a device; returns facts to print and to log: those of ``Device.facts`` and what was found now.

    ``choose_device`` has compared card, driver, wheels and cuDNN by then. On a GPU this adds
    ``free_memory_gb``, ``arithmetic`` and, where there is something to know about the card, ``note``.

    Raises ``HardwareError`` with the fix where a GPU is there, or ``require_gpu`` says it should be,
    that torch cannot use; where its memory is taken; and where it fails at, or miscomputes, a
    convolution with its gradient or an fp16 matrix product.
    """
    if device.capability is None:
        _check_nothing_missing(require_gpu)
        return dict(device.facts)
    free, total = torch.cuda.mem_get_info(device.torch)
    if free < _MIN_FREE_BYTES:
        raise HardwareError(
            f"only {free / 1e9:.1f} of the {total / 1e9:.1f} GB of {device.description} are free; see with nvidia-smi "
            "which process holds the rest and end it, or choose another card in CUDA_VISIBLE_DEVICES"
        )
    check_arithmetic(device.torch, device.description)
    found = {"free_memory_gb": f"{free / 1e9:.1f}", "arithmetic": "as the CPU's"}
    note = card_note(device.capability)
    return {**device.facts, **found, **({"note": note} if note else {})}


def _check_nothing_missing(require_gpu: bool) -> None:
    driver, num_cards = ask_driver()
    present = card_present(num_cards)
    if not present and not require_gpu:
        return
    found = "there is an NVIDIA GPU that torch cannot use" if present else "a GPU was asked for, and there is none"
    reason = explain_no_cuda(torch.version.cuda, driver, num_cards, _cuda_complaint())
    raise HardwareError(f"{found}: {reason}" if require_gpu else f"{found}: {reason}, {ON_PURPOSE}")


def _cuda_complaint() -> str:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return first_line(error)
    return "no reason given"


def check_arithmetic(device: torch.device, name: str) -> None:
    """Compare a convolution with its gradient, and an fp16 matrix product, with the CPU's.

    Raises ``HardwareError`` where an operation fails or is off by more than a hundredth of the largest value.
    """
    generator = torch.Generator().manual_seed(0)
    image, kernel = torch.randn(2, 8, 16, 16, generator=generator), torch.randn(8, 8, 3, 3, generator=generator)
    matrix = torch.randn(64, 64, generator=generator).half()
    cpu = torch.device("cpu")
    try:
        expected = (*_convolve(image, kernel, cpu), matrix.float() @ matrix.float())
        found = (*_convolve(image, kernel, device), matrix.to(device) @ matrix.to(device))
        errors = [_error(*pair) for pair in zip(expected, found, strict=True)]
    except RuntimeError as error:
        raise HardwareError(
            f"the first operations on {name} failed: {first_line(error)}; reinstall torch, then the driver"
        ) from None
    for what, off in zip(_TRIALS, errors, strict=True):
        if not off < _TOLERANCE:  # NaN included
            raise HardwareError(
                f"{name} computes {what} wrong (off by {off:.2g} of the largest value); "
                "take the card out of service, or reinstall its driver"
            )


def _convolve(image: Tensor, kernel: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """A convolution's output and the gradient of its kernel."""
    weight = kernel.to(device).requires_grad_()
    output = F.conv2d(image.to(device), weight, padding=1)
    (gradient,) = torch.autograd.grad(output.square().mean(), weight)
    return output.detach(), gradient


def _error(expected: Tensor, found: Tensor) -> float:
    return ((found.cpu().float() - expected).abs().max() / expected.abs().max()).item()
