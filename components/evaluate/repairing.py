"""What the evaluation compares: methods, and what they make of one family's holes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from components.inpainting.classical import METHODS, SLOW
from components.inpainting.dataset import Split
from components.inpainting.images import Bytes
from components.inpainting.inpainter import Inpainter, open_classical, wrap_finder, wrap_generator
from components.inpainting.metrics import Scores, mask_scores
from components.inpainting.networks import Generator
from components.inpainting.networks.blind_unet import BlindUNet
from components.inpainting.scores import DAMAGED
from components.progress import track

Repairs = dict[str, Bytes]
"""Method name to its repairs, uint8 ``N,H,W,3``; of slow methods the first pictures only."""

_SLOW_PIXELS = 24 * 64 * 64
"""Of one family, that slow methods repair: their time grows with the square of a picture's pixels."""
_FEWEST = 4


@dataclass
class Contest:
    """All methods, and how long each of them takes."""

    generators: dict[str, Generator]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._methods: dict[str, Inpainter] = {name: open_classical(name) for name in METHODS}
        self._methods |= {name: judged(generator) for name, generator in self.generators.items()}

    def repair(self, test: Split, family: str) -> Repairs:
        """Every method's repairs under one family's holes; ``DAMAGED`` are the pictures as they are."""
        masks, damaged = np.asarray(test.masks(family)), np.asarray(test.damaged(family))
        few = num_beside(damaged)
        repairs: Repairs = {DAMAGED: damaged}
        repairs |= {name: np.empty_like(damaged[: few if name in SLOW else None]) for name in self._methods}
        for i in track(range(len(damaged)), f"evaluate {family}", len(damaged)):
            for name, repaired in repairs.items():
                if name != DAMAGED and i < len(repaired):
                    started = time.perf_counter()
                    repaired[i] = self._methods[name](damaged[i], masks[i])
                    self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return repairs

    def find(self, test: Split, family: str) -> dict[str, dict[str, Scores]]:
        """How well each blind generator finds one family's damage: its scores per picture, see ``mask_scores``."""
        masks, damaged = np.asarray(test.masks(family)), np.asarray(test.damaged(family))
        found = {}
        for name, generator in self.generators.items():
            if isinstance(generator, BlindUNet):
                find = wrap_finder(generator)
                found[name] = mask_scores(np.stack([find(picture) for picture in damaged]), masks)
        return found


def num_beside(pictures: Bytes) -> int:
    """Of so many pictures of a family, ``N,H,W,3``, every method makes a repair, slow ones included."""
    area = int(pictures.shape[1] * pictures.shape[2])
    return min(len(pictures), max(_FEWEST, _SLOW_PIXELS // area))


def judged(generator: Generator) -> Inpainter:
    """A generator as it is judged: a blind one is not shown where the damage is, and nothing is pasted for it."""
    repair = wrap_generator(generator)
    return (lambda image, mask: repair(image, np.zeros_like(mask))) if generator.blind else repair
