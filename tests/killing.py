"""Trains, killed again and again at random moments, until it is done: run by ``tests/test_recovery.py``.

Usage: python -m tests.killing DATASET HOME OUTPUT KILLS SEED [name=value ...]

Heavy libraries load once, in a parent that computes nothing; every attempt is a fork of it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from components.config import PipelineConfig, Settings
from components.form import parse_assignments
from tests.training import train_model


def attempt(dataset: Path, home: Path, output: Path, assignments: list[str]) -> None:
    """One process's try at the training."""
    config = PipelineConfig.from_flat(parse_assignments(assignments))
    train_model(config, dataset, output, Settings(home=home))


def _wait_for_another_checkpoint(home: Path, child: int) -> None:
    before = set(home.glob("training/*/step-*"))
    while set(home.glob("training/*/step-*")) <= before:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):  # it ended by itself
            return
        time.sleep(0.005)


def main(dataset: Path, home: Path, output: Path, kills: int, seed: int, assignments: list[str]) -> None:
    """Kill attempts until ``kills`` of them were, then let one finish; prints where each kill struck."""
    chance = random.Random(seed)
    while True:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)
        child = os.fork()
        if child == 0:
            attempt(dataset, home, output, assignments)
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGINT):  # those are meant for the child
            signal.signal(number, signal.SIG_IGN)
        if kills:
            _wait_for_another_checkpoint(home, child)
            time.sleep(chance.uniform(0, 0.8))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        left = sorted(path.name for path in home.glob("training/*/.step-*"))
        newest = max((path.name[:13] for path in home.glob("training/*/step-*")), default="nothing")
        print(f"{'killed' if os.WIFSIGNALED(status) else 'ended'} at {newest} {left}", flush=True)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                sys.exit(os.WEXITSTATUS(status))
            return
        kills -= 1


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:4]]
    main(folders[0], folders[1], folders[2], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
