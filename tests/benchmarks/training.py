"""Training speed, as ratios in one run.

    python -m tests.benchmarks.training [DATASET] [--rounds 5]

1. The paper's networks in our loop, against a straightforward loop of the same networks as public repositories
   write it: a DataLoader that draws each picture's mask in Python, the discriminator on whole batches of true
   and repaired pictures, its weights' gradients computed in the generator's step as well, fp32.
2. Our default generator's step with its batch, against the sum of its own forward and backward passes on tensors
   that lie ready: what the loop itself costs.
3. On a GPU, the share of the card's measured matrix rate that the step of the default generator achieves.

DATASET is a folder that ``kintsugi prepare`` wrote; without one, pictures are cut from the photographs that
ship with scikit-image.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from components.config import PipelineConfig, Settings, TrainConfig
from components.hardware import Compute, choose_compute, choose_device
from components.inpainting.batches import Batches
from components.inpainting.dataset import PreparedDataset, Shards
from components.inpainting.masks import MaskMixture
from components.inpainting.networks.context_encoder import ContextEncoder, TwoPathDiscriminator
from components.prepare import prepare_here
from components.train.loop import AdversarialLoop
from components.train.recipes import RECIPES

_SIZE, _BOX, _PAPER_BATCH, _BATCH = 32, 8, 64, 32
_STEPS = 12  # a round
_MATRIX = 8192
_LONG = 100_000  # steps that repay compiling


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = PreparedDataset.open(options.dataset or _prepare(Path(scratch)))
        _papers(data, _compute("context_encoder"), options.rounds)
        _overhead(data, _compute("residual_unet"), options.rounds)


def _compute(model: str) -> Compute:
    compute = choose_compute(choose_device(), "auto", "auto", _LONG, RECIPES[model].repaid_after)
    print(f"\n{model}: {compute.device.description}; {compute.reason}")
    return compute


def _prepare(scratch: Path) -> Path:
    flat = {"data_image_size": _SIZE, "data_num_train": 2048, "data_masks": "box,strokes,scratches,text"}
    return prepare_here(PipelineConfig.from_flat(flat).data, scratch, Settings(home=scratch))


def _papers(data: PreparedDataset, compute: Compute, rounds: int) -> None:
    images = data.split("train").images
    ours, theirs = _our_loop(data, images, compute), _reference_loop(images, compute)
    best = _interleaved({"ours": ours, "reference": theirs}, rounds)
    rates = {name: _STEPS * _PAPER_BATCH / seconds for name, seconds in best.items()}
    print(f"the paper's networks, batches of {_PAPER_BATCH} pictures of {data.image_size} pixels, best of {rounds}")
    for name, rate in rates.items():
        print(f"  {name:<12}{rate:>8.0f} pictures a second {rate / rates['reference']:>6.2f}x")


def _our_loop(data: PreparedDataset, images: Shards, compute: Compute) -> Callable[[], None]:
    config = TrainConfig(model="context_encoder", batch_size=_PAPER_BATCH, learning_rate=2e-4, adversarial_weight=0.001)
    loop = AdversarialLoop(config, data.image_size, compute)
    masks = MaskMixture({"box": 1}, data.image_size, _BOX).draw(2048, np.random.default_rng(0))
    batches = Batches(images, masks, compute.device.torch, 0, _PAPER_BATCH)

    def run() -> None:
        for _ in range(_STEPS):
            loop.step(batches[loop.num_steps])
        _finish(compute)

    return run


class _Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures with a box drawn in Python for each, as a plain training script has it."""

    def __init__(self, images: Shards) -> None:
        self._images = np.array(images)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        picture = torch.from_numpy(self._images[row]).permute(2, 0, 1).float() / 127.5 - 1
        mask = torch.zeros(1, *picture.shape[1:])
        top, left = np.random.randint(0, picture.shape[1] - _BOX, 2)
        mask[:, top : top + _BOX, left : left + _BOX] = 1
        return picture, mask


def _reference_loop(images: Shards, compute: Compute) -> Callable[[], None]:
    device = compute.device.torch
    generator, discriminator = ContextEncoder().to(device), TwoPathDiscriminator(images.shape[1]).to(device)
    optimizer, d_optimizer = (
        torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in (generator, discriminator)
    )
    loader = DataLoader(_Pictures(images), _PAPER_BATCH, shuffle=True, drop_last=True)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    endless = batches()

    def judge(pictures: Tensor, mask: Tensor, real: float) -> Tensor:
        logits = discriminator((pictures + 1) / 2, mask).logits
        return torch.stack([F.binary_cross_entropy_with_logits(x, torch.full_like(x, real)) for x in logits]).mean()

    def run() -> None:
        for _ in range(_STEPS):
            picture, mask = (tensor.to(device) for tensor in next(endless))
            optimizer.zero_grad()
            repaired = generator((picture + 1) / 2 * (1 - mask), mask) * 2 - 1
            loss = 0.999 * nn.functional.mse_loss(repaired, picture) + 0.001 * judge(repaired, mask, 1.0)
            loss.backward()
            optimizer.step()
            d_optimizer.zero_grad()
            d_loss = (judge(picture, mask, 1.0) + judge(repaired.detach(), mask, 0.0)) / 2
            d_loss.backward()
            d_optimizer.step()
            d_loss.item(), loss.item()  # printed every iteration
        _finish(compute)

    return run


def _overhead(data: PreparedDataset, compute: Compute, rounds: int) -> None:
    loop = AdversarialLoop(TrainConfig(batch_size=_BATCH), data.image_size, compute)
    masks = data.mixture.draw(1024, np.random.default_rng(0))
    batches = Batches(
        data.split("train").images,
        masks,
        compute.device.torch,
        0,
        _BATCH,
        fill=loop.generator.fill,
        reuse=loop.recipe.reuse,
    )

    def whole() -> None:
        for _ in range(_STEPS):
            loop.step(batches[loop.num_steps])
        _finish(compute)

    def passes() -> None:
        for number in range(_STEPS):
            _passes(loop, batches, number)
        _finish(compute)

    best = _interleaved({"step": whole, "passes": passes}, rounds)
    print(f"the default generator, batches of {_BATCH} pictures of {data.image_size} pixels, best of {rounds}")
    step_ms, passes_ms = (best[name] / _STEPS * 1e3 for name in ("step", "passes"))
    print(f"  forward and backward passes {passes_ms:>8.1f} ms a step")
    print(f"  the step with its batch     {step_ms:>8.1f} ms, {step_ms / passes_ms - 1:+.1%}")
    if compute.device.torch.type == "cuda":
        _utilisation(loop, batches, compute, best["step"] / _STEPS)


def _passes(loop: AdversarialLoop, batches: Batches, number: int) -> None:
    """The forward and backward passes of one step, and the fill's share of it, with nothing around them."""
    batch = batches[0]
    if number % loop.recipe.reuse == 0 and loop.generator.fill:
        loop.generator.fill(batch.truth * (1 - batch.mask), batch.mask)
    with loop.compute.autocast():
        repair = loop.generator.core(batch.start, batch.mask).float()
        opposition = loop.recipe.adversary.oppose(loop.discriminator, batch, repair.detach())
    opposition.loss.backward()
    loss = loop.reconstruction(repair, batch.truth, batch.mask, batch.start)
    loop.discriminator.requires_grad_(False)
    with loop.compute.autocast():
        persuasion = loop.recipe.adversary.persuade(loop.discriminator, batch, repair)
        loss = loss + loop.config.adversarial_weight * persuasion
    loss.backward()
    loop.discriminator.requires_grad_(True)


def _utilisation(loop: AdversarialLoop, batches: Batches, compute: Compute, seconds: float) -> None:
    with FlopCounterMode(display=False) as counter:
        _passes(loop, batches, 1)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(compute.precision, torch.float32)
    matrix = torch.rand(_MATRIX, _MATRIX, device=compute.device.torch, dtype=dtype)

    def multiply() -> None:
        for _ in range(10):
            matrix @ matrix
        _finish(compute)

    best = _interleaved({"matrix": multiply}, 5)["matrix"]
    rate, card = counter.get_total_flops() / seconds, 10 * 2 * _MATRIX**3 / best
    print(f"  {rate / 1e12:.1f} TFLOP/s, {rate / card:.1%} of the {card / 1e12:.0f} that a matrix product reaches here")


def _interleaved(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The best time of each in seconds, in turn, so that a busy moment meets all alike."""
    best = dict.fromkeys(contenders, float("inf"))
    for number in range(rounds + 2):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if number >= 2:  # the first two compile and warm up
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def _finish(compute: Compute) -> None:
    if compute.device.torch.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
