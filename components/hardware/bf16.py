"""Is this CPU faster in bf16? Some have the instructions and are, some only have the type."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional as F

_ROUNDS = 6
_SHAPE = (8, 32, 32, 32)  # as the default generator's features at a batch of 8 and 64 pixels


def cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 instructions: AVX512-BF16 or AMX."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def bf16_speedup() -> float:
    """How many times faster a small gated network trains in bf16 than in fp32 on this CPU; half a second.

    Each in the layout it is trained in. The best of some interleaved rounds, in CPU time of one thread,
    which other work on the machine hardly touches: wall time on a busy machine is off by factors.
    The global random state stays as it was.
    """
    fp32, bf16 = _network(torch.channels_last), _network(torch.contiguous_format)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [(_seconds(fp32, False), _seconds(bf16, True)) for _ in range(_ROUNDS)]
    finally:
        torch.set_num_threads(num_threads)
    return min(slow for slow, _ in rounds) / min(fast for _, fast in rounds)


def _network(layout: torch.memory_format) -> list[Tensor]:
    """Features and the kernels of four gated convolutions."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(_SHAPE, generator=generator)
    kernels = [torch.randn(2 * _SHAPE[1], _SHAPE[1], 3, 3, generator=generator) * 0.05 for _ in range(4)]
    return [features.to(memory_format=layout), *(k.to(memory_format=layout).requires_grad_() for k in kernels)]


def _seconds(network: list[Tensor], in_bf16: bool) -> float:
    begin = time.thread_time()
    features, *kernels = network
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
        for kernel in kernels:
            content, gate = F.conv2d(features, kernel, padding=1).chunk(2, dim=1)
            features = features + F.elu(content) * torch.sigmoid(gate)
    torch.autograd.grad(features.float().abs().mean(), kernels)
    return time.thread_time() - begin
