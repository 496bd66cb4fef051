"""The train step: a dataset in, a generator out, its history and sample pictures beside it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from components.config import RunConfig, Settings, TrainConfig
from components.inpainting.dataset import KIND as DATASET
from components.inpainting.inpainter import usable_cores
from components.manifest import code_version, read_json_lines, read_manifest, write_file
from components.progress import step
from components.report import training_report
from components.train.checkpoint import Checkpoints, workplace
from components.train.guard import TrainingDiverged
from components.train.nodes import WorkersFailed, train_on_nodes
from components.train.session import HISTORY, KIND, Order, run_training

__all__ = ["KIND", "TrainingDiverged", "train"]

_RESTARTS = 3  # of all processes, when one of them dies


@step("train")
def train(
    config: TrainConfig, run_config: RunConfig, dataset: Path, card: Path, model: Path, report: Path, settings: Settings
) -> dict[str, float]:
    """Train a generator on a dataset folder and write a model folder and an HTML report; returns its log's last line.

    The dataset's ``card`` (HTML) is filed with the run in MLflow.

    The model folder holds ``config.json``, ``generator.safetensors``, ``history.jsonl`` (the log, one
    row per interval) and ``samples/step-*.png``. Until it is whole, checkpoints are kept in the state folder;
    the same training, started again, goes on from the newest. Raises ``TrainingDiverged`` rather than hand
    on a model that went astray; ends the process with 143 when asked to stop by SIGTERM.
    """
    digest = read_manifest(dataset, DATASET).digest
    settings.make_state()
    with workplace(settings.state / "training", _key(config, digest), model) as place:
        order = Order(config=config, run=run_config, dataset=dataset, card=card, model=model, place=place)
        if config.num_nodes > 1:
            train_on_nodes(order)
        elif config.num_processes > 1:
            _run_elastic(order, settings)
        else:
            run_training(order, settings)
        Checkpoints(place).finish(model)
    write_file(report, training_report(model))
    rows = read_json_lines(model / HISTORY)
    last: dict[str, float] = rows[-1] if rows else {}
    last.pop("step", None)
    return last


def _key(config: TrainConfig, dataset_digest: str) -> str:
    """What makes two trainings the same: parameters, dataset and code."""
    ours = config.model_copy(update={"code_version": code_version()}).model_dump_json()
    return hashlib.sha256(f"{ours}\0{dataset_digest}".encode()).hexdigest()[:16]


def _run_elastic(order: Order, settings: Settings) -> None:
    """Train in several processes; when one dies, all start again from the newest checkpoint."""
    path, count = order.place / "order.json", order.config.num_processes
    path.write_text(order.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}",
               f"--max-restarts={_RESTARTS}", "-m", "components.train.worker", str(path)]  # fmt: skip
    environment = {
        "OMP_NUM_THREADS": str(max(1, usable_cores() // count)),
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # after a restart it still has the dead's addresses, pytorch#135712
    }
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        code = process.wait()
        raise
    if code:
        raise WorkersFailed(f"the training's processes ended with {code}; the reason is in the lines above")
