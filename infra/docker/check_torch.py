"""Assert, where the gpu image is built, that its torch runs on every card from Pascal to Hopper."""

from __future__ import annotations

import importlib.metadata

import torch

CAPABILITIES = {"sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"}
"""P100, V100, T4, A100, A10 (whose kernels run on an L4, sm_89, as well), H100."""
CUDNN_LIMIT = (9, 11)
"""This release dropped every card before Turing."""


def main() -> None:
    """Raise ``SystemExit`` with a sentence for each thing that does not hold."""
    wrong, flags = [], torch._C._cuda_getArchFlags() or ""  # get_arch_list() is empty where no card is
    if torch.version.cuda != "12.6":
        wrong.append(f"torch {torch.__version__} is built for CUDA {torch.version.cuda}, not 12.6")
    if missing := CAPABILITIES - set(flags.split()):
        wrong.append(f"torch {torch.__version__} has no kernels for {', '.join(sorted(missing))}")
    cudnn = importlib.metadata.version("nvidia-cudnn-cu12")
    if tuple(map(int, cudnn.split(".")[:2])) >= CUDNN_LIMIT:
        wrong.append(f"cuDNN {cudnn} has no kernels for P100 and V100; hold it below 9.11")
    if wrong:
        raise SystemExit("; ".join(wrong))
    print(f"torch {torch.__version__}, cuDNN {cudnn}: {flags}")


if __name__ == "__main__":
    main()
