"""What logging costs a training: with a healthy MLflow, a dead one, and one that hangs, in one run.

    python -m tests.benchmarks.tracking [--steps 1000] [--log-interval 50] [--sample-interval 250]

The training is a stand-in: convolutions on one thread that log as the train step does. The calls are
timed in the training's own thread, wall clock and CPU; what the threads behind them burn is the CPU time
of the process less that of the training's thread. Shares count; the seconds are those of the machine.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from components.config import RunConfig, Settings, TrainConfig
from components.inpainting.images import Bytes
from components.manifest import Manifest
from components.tracking import Registry, Run, start_run

_LOSSES = ("d_loss", "d_accuracy", "g_loss", "mse", "ssim")
_FAMILIES = ("box", "strokes", "scratches", "text")
_MANIFEST = Manifest(kind="dataset", digest="d" * 64, code_version="", facts={"source": "benchmark"})


@dataclass
class Cost:
    """Seconds of a loop, and of the logging in it."""

    loop: float = 0.0
    calls: float = 0.0  # wall clock, in the training's thread
    calls_cpu: float = 0.0
    behind_cpu: float = 0.0  # in other threads
    closing: float = 0.0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Time one call."""
        wall, cpu = time.perf_counter(), time.thread_time()
        yield
        self.calls += time.perf_counter() - wall
        self.calls_cpu += time.thread_time() - cpu


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--log-interval", type=int, default=TrainConfig().log_interval)
    parser.add_argument("--sample-interval", type=int, default=TrainConfig().sample_interval)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.steps} steps, a line each {options.log_interval}, pictures each {options.sample_interval}")
    scenarios: dict[str, Callable[[Path], Cost]] = {
        "healthy, sqlite": lambda home: _train(home, "", options),
        "dead": lambda home: _train(home, _dead(), options),
        "hangs": lambda home: _hanging(home, options),
    }
    rows = [f"  {'MLflow':16} {'loop':>8} {'calls':>9} {'share':>8} {'CPU':>8} {'behind':>8} {'closing':>8}"]
    for name, train in scenarios.items():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            cost = train(Path(home))
        rows.append(
            f"  {name:16} {cost.loop:6.1f} s {1000 * cost.calls:6.1f} ms {cost.calls / cost.loop:8.3%} "
            f"{cost.calls_cpu / cost.loop:8.3%} {cost.behind_cpu / cost.loop:8.3%} {cost.closing:6.1f} s"
        )
    print("\n".join(rows))


def _train(home: Path, uri: str, options: argparse.Namespace) -> Cost:
    os.environ["MLFLOW_TRACKING_URI"] = uri
    settings, cost = Settings(home=home), Cost()
    if not uri:
        Registry(settings, "benchmark").versions()  # makes the tables, once in the life of a state folder
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)))
    batch, sheet = torch.rand(8, 3, 64, 64), np.random.default_rng(0).integers(0, 256, (780, 400, 3), np.uint8)
    with start_run(settings, RunConfig(), TrainConfig(), _MANIFEST) as run:
        wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
        for step in range(1, options.steps + 1):
            network(batch).square().mean().backward()
            if step % options.log_interval == 0:
                _log(run, cost, step)
            if step % options.sample_interval == 0:
                _sample(run, cost, sheet, step)
        cost.loop = time.perf_counter() - wall
        cost.behind_cpu = time.process_time() - process - (time.thread_time() - thread)
        closing = time.perf_counter()
    cost.closing = time.perf_counter() - closing
    return cost


def _log(run: Run, cost: Cost, step: int) -> None:
    values = {f"batch/{name}": step / 3 for name in _LOSSES}
    with cost.call():
        run.log_metrics(values, step)


def _sample(run: Run, cost: Cost, sheet: Bytes, step: int) -> None:
    scores = {f"val/{name}/{family}": step / 3 for name in ("ssim", "psnr", "hole_mse") for family in _FAMILIES}
    with cost.call():
        run.log_metrics(scores, step)
        for number in range(6):
            run.log_image(np.ascontiguousarray(sheet[:64, :64]), f"val/{number}_box", step)
        run.log_image(sheet, "samples", step)


def _dead() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def _hanging(home: Path, options: argparse.Namespace) -> Cost:
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and never answers
        return _train(home, f"http://127.0.0.1:{server.getsockname()[1]}", options)


if __name__ == "__main__":
    main()
