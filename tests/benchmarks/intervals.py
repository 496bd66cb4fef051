"""How often a 95 % interval over few photographs holds the truth, beside the bootstrap's percentiles.

python -m tests.benchmarks.intervals [number of intervals]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from components.evaluate.intervals import Bootstrap
from components.inpainting.metrics import Scores

SIZES = {
    "2 photographs": [48, 48], "3": [32, 32, 32], "5": [20, 20, 20, 20, 20], "5, of unequal size": [60, 20, 10, 4, 2],
    "12": [8] * 12, "40": [2] * 40,
}  # fmt: skip
"""Pictures of each photograph."""
_TRUTH = 1.0
_NOISE = 0.3  # of a picture, where photographs vary by 1


def main(count: int = 2000) -> None:
    """Print one line per number of photographs: the share of intervals that hold the truth, in %."""
    kinds: dict[str, Callable[[np.random.Generator, int], Scores]] = {
        "normal": lambda random, number: random.normal(_TRUTH, 1, number),
        "skewed": lambda random, number: random.exponential(_TRUTH, number),
    }
    heads = [f"{kind}{rival}" for kind in kinds for rival in ("", ", percentiles")]
    print(f"{'':20}" + "".join(f"{head:>22}" for head in heads))
    for name, sizes in SIZES.items():
        held = [share for draw in kinds.values() for share in _held(sizes, draw, count)]
        print(f"{name:20}" + "".join(f"{100 * share:22.1f}" for share in held))
    print(f"skewed: exponential; {count} intervals each, of which 95 % should hold the truth")


def _held(sizes: list[int], draw: Callable[[np.random.Generator, int], Scores], count: int) -> list[float]:
    """The share of our intervals, and of the percentiles' ones, that hold the truth."""
    random, photographs = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    bootstrap = Bootstrap(photographs.tolist())
    resamples = random.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), 1000)[:, photographs]
    held = np.zeros(2)
    for _ in range(count):
        values = draw(random, len(sizes))[photographs] + random.normal(0, _NOISE, len(photographs))
        ours = bootstrap.interval(values)
        low, high = np.quantile(resamples @ values / resamples.sum(axis=1), [0.025, 0.975])
        held += [ours.low <= _TRUTH <= ours.high, low <= _TRUTH <= high]
    return [float(share) for share in held / count]


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
