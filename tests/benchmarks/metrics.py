"""Our batched SSIM beside scikit-image's, on the same pictures in one run: the ratio, and the largest difference.

    python -m tests.benchmarks.metrics [--count 64] [--rounds 5]

The pictures are crops of scikit-image's photographs with noise on them. scikit-image takes one picture at a time,
ours all of them, both on one thread, and on a GPU where there is one, the way there and back included.
scikit-image computes in float64, ours in integers as far as they go.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from skimage import data
from skimage.metrics import structural_similarity

from components.inpainting.images import Bytes
from components.inpainting.metrics import Scores, ssim

_SIZES = (32, 128, 256)


def main() -> None:
    """Print one line per size of picture and device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=64, help="pictures")
    parser.add_argument("--rounds", type=int, default=5, help="the best of so many counts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print(f"SSIM of {arguments.count} pictures, best of {arguments.rounds} rounds in turn, one thread")  # fmt: skip
    for size in _SIZES:
        for line in _compare(*noisy_crops(arguments.count, size), devices, arguments.rounds):
            print(f"  {size:3} px  {line}")
    if "cuda" not in devices:
        print("no GPU: not tried")


def noisy_crops(count: int, size: int) -> tuple[Bytes, Bytes]:
    """Crops with noise from weak to strong, and without: uint8 ``count,size,size,3`` both."""
    draw = np.random.default_rng(0)
    photographs = [data.astronaut(), data.chelsea(), data.coffee()]
    truths = np.stack([_crop(photographs[i % len(photographs)], size, draw) for i in range(count)])
    noise = draw.normal(0, np.linspace(1, 60, count)[:, None, None, None], truths.shape)
    return np.clip(truths + noise, 0, 255).astype(np.uint8), truths


def _crop(photograph: Bytes, size: int, draw: np.random.Generator) -> Bytes:
    top, left = (int(draw.integers(length - size)) for length in photograph.shape[:2])
    return photograph[top : top + size, left : left + size]


def _compare(repairs: Bytes, truths: Bytes, devices: list[str], rounds: int) -> list[str]:
    """A line per device: seconds of both, their ratio, the largest difference of a score."""
    ways: dict[str, Callable[[], Scores]] = {"scikit-image": lambda: _one_by_one(repairs, truths)}
    ways |= {device: lambda device=device: ssim(repairs, truths, device) for device in devices}  # type: ignore[misc]
    expected = ways["scikit-image"]()
    differences = {device: np.abs(ways[device]() - expected).max() for device in devices}
    seconds = dict.fromkeys(ways, np.inf)
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    reference = seconds["scikit-image"]
    return [
        f"{device:4}  scikit-image {1000 * reference:7.1f} ms, ours {1000 * seconds[device]:7.1f} ms, "
        f"ratio {reference / seconds[device]:5.1f}, largest difference {differences[device]:.1e}"
        for device in devices
    ]


def _one_by_one(repairs: Bytes, truths: Bytes) -> Scores:
    return np.array([structural_similarity(a, b, channel_axis=-1) for a, b in zip(repairs, truths, strict=True)])


if __name__ == "__main__":
    main()
