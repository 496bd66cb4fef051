"""One training from its first step, or from its newest checkpoint, to the model it hands on."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from components.config import RunConfig, Settings, TrainConfig
from components.hardware import Compute, choose_compute, choose_device, preflight, restore_compute
from components.inpainting.batches import Batches
from components.inpainting.dataset import PreparedDataset
from components.inpainting.networks import save_generator
from components.inpainting.painting import paint_damage
from components.manifest import Draft, complete_folder
from components.progress import Bar, say
from components.tracking import start_run
from components.train.checkpoint import Checkpoints
from components.train.loop import AdversarialLoop
from components.train.recipes import recipe_of
from components.train.recorder import Recorder
from components.train.samples import Samples
from components.train.state import TrainingState
from components.train.stopping import Stopped, Stopping
from components.train.trainer import Trainer
from components.train.world import World, join_world

KIND = "model"
HISTORY = "history.jsonl"
_MASK_BANK = 4096  # training masks, at most; mirrored, or turned as well, they make more
_FEW_PHOTOGRAPHS = 500  # below that, pictures are turned and recoloured too, see Batches


class Order(BaseModel):
    """What one training is to do, and where; JSON, so that the processes of ``torchrun`` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainConfig
    run: RunConfig
    dataset: Path
    card: Path
    model: Path
    place: Path  # for checkpoints and samples, see ``workplace``


def run_training(order: Order, settings: Settings) -> None:
    """Train, from the newest checkpoint where there is one, and write the model folder.

    Under ``torchrun`` every process calls this, and the first of them writes. Raises ``TrainingDiverged``
    rather than hand on a model whose training went astray, and ``SystemExit`` (128 + signal number) once
    a checkpoint is written, where it was asked to stop.
    """
    data, checkpoints = PreparedDataset.open(order.dataset), Checkpoints(order.place)
    with join_world() as world:
        stopping = Stopping(at_once=world.size == 1)
        state = checkpoints.newest(world.tell)
        loop = AdversarialLoop(order.config, data.image_size, _compute(order, state, world), world)
        trainer = Trainer(order.config, loop, _batches(order.config, data, loop), checkpoints, stopping)
        with stopping.listen():
            try:
                if world.leads:
                    _lead(order, settings, data, trainer, state)
                else:
                    trainer.train(state)
            except Stopped as stopped:
                raise SystemExit(128 + stopped.number) from None


def _lead(
    order: Order, settings: Settings, data: PreparedDataset, trainer: Trainer, state: TrainingState | None
) -> None:
    """The part of the first process: train, write down what happens, and hand on the model."""
    config, loop, started = order.config, trainer.loop, time.monotonic()
    say(f"training {config.model} for {config.steps} steps on {loop.compute.device.description}")
    with start_run(settings, order.run, config, data.manifest, order.place) as run:
        run.log_page(order.card, "dataset/card.html")
        run.set_tags(loop.compute.tags)
        samples = Samples(data, order.place / "samples", run)
        with complete_folder(order.model, KIND) as draft:
            with Bar("train", config.steps) as bar:
                recorder = trainer.witness = Recorder(config, trainer.checkpoints, samples, run, bar)
                try:
                    trainer.train(state)
                except Stopped as stopped:
                    with trainer.stopping.shielded():
                        recorder.save(loop)
                    say(f"{stopped}: stopped after step {loop.num_steps}; the same run goes on from there")
                    raise
            _write(draft, loop, recorder, samples)
            draft.made_from = {"dataset": data.manifest.digest}
            draft.facts |= {"run_id": run.id, "run_uid": run.uid, "seconds": round(time.monotonic() - started, 1)}
        run.log_model_folder(order.model)


def _write(draft: Draft, loop: AdversarialLoop, recorder: Recorder, samples: Samples) -> None:
    save_generator(loop.result, draft.path)
    recorder.write_history(draft.path / HISTORY)
    shutil.copytree(samples.folder, draft.path / "samples")
    draft.facts = {"model": loop.config.model, "steps": loop.num_steps, "hardware": loop.compute.tags}


def _compute(order: Order, state: TrainingState | None, world: World) -> Compute:
    """How to compute: as the checkpoint says, else as the first process chooses."""
    device = choose_device(world.local_rank, world.local_size)
    facts = preflight(device)
    if state:
        return restore_compute(device, state.facts["compute"])
    chosen = order.place / "compute.json"
    if world.leads:
        config, repaid_after = order.config, recipe_of(order.config).repaid_after
        compute = choose_compute(device, config.precision, config.compile, config.steps, repaid_after)
        say(f"{compute.reason}{'; ' + facts['note'] if 'note' in facts else ''}")
        chosen.write_text(json.dumps(compute.settings))
    world.wait()
    return compute if world.leads else restore_compute(device, json.loads(chosen.read_text()))


def _batches(config: TrainConfig, data: PreparedDataset, loop: AdversarialLoop) -> Batches:
    num_masks = min(_MASK_BANK, max(1, config.steps) * config.batch_size)
    masks = data.mixture.draw(num_masks, np.random.default_rng([config.seed, 3]))
    return Batches(
        data.split("train").images, masks, loop.compute.device.torch, config.seed, config.batch_size,
        fill=loop.generator.fill, paint=paint_damage if loop.recipe.mask_weight else None, reuse=loop.recipe.reuse,
        thorough=data.manifest.facts["photos"]["train"] < _FEW_PHOTOGRAPHS,
    )  # fmt: skip
