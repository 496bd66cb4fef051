"""The plan step: every parameter validated together, in seconds, before any data moves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.cluster import ensure_volume
from components.config import PipelineConfig, ReadOrder
from components.form import resolve
from components.manifest import code_version, write_file
from components.pools import POOLS, Placement, place
from components.progress import say, step
from components.report import render


@step("plan")
def plan(form: Mapping[str, Any], cpu_image: str, gpu_image: str, report: Path) -> tuple[Any, ...]:
    """Validate a filled run form; returns the sections as JSON, where and in which image to train, and read orders.

    The sections come in the order of ``PipelineConfig``. The code version stands in every one, so that a
    step's cache key changes with the code. ``report`` becomes a page (HTML) that names every parameter and
    who set it. On a cluster the shared volume is made where it is missing. Raises ``ConfigError`` naming
    every parameter that is wrong, and ``ClusterError`` where the cluster, or having none, does not allow the run.
    """
    config, origins = resolve(form)
    placement = _placement(config)
    say(f"{len(config.flat())} parameters are valid{''.join(_choices(config, origins))}")
    notes = [note for note in (_where(config), ensure_volume(config.run.volume, config.train.num_nodes)) if note]
    shown = {name: value for name, value in config.flat().items() if name != "run_webhook"}
    write_file(report, render("plan.html", title="The run as planned", parameters=shown, origins=origins, notes=notes))
    planned = [
        getattr(config, name).model_copy(update={"code_version": code_version()})
        for name in PipelineConfig.model_fields
    ]
    orders = [ReadOrder(config=planned[0], shard=shard).model_dump_json() for shard in config.data.shards]
    dumped = (section.model_dump_json() for section in planned)
    image = cpu_image if config.run.gpu == "none" else gpu_image
    return *dumped, placement.node_selector, placement.tolerations, placement.accelerator_limit, image, orders


def _placement(config: PipelineConfig) -> Placement:
    """Where the pod of the train step goes; with several nodes it only starts and follows those that train."""
    if config.train.num_nodes > 1:
        return Placement()
    return place(config.run.gpu, config.train.num_processes, spot=config.run.spot)


def _choices(config: PipelineConfig, origins: Mapping[str, str]) -> list[str]:
    flat = config.flat()
    return [f"; {name} = {flat[name]} ({origin})" for name, origin in origins.items() if name != "run_webhook"]


def _where(config: PipelineConfig) -> str:
    """On which nodes a cluster trains; a machine of one's own trains on whatever it has."""
    nodes = "a node" if config.train.num_nodes == 1 else f"{config.train.num_nodes} nodes at once"
    if config.run.gpu == "none":
        return f"On a cluster, training takes {nodes} of any kind and no GPU."
    pool, count = POOLS[config.run.gpu], config.train.num_processes
    kind = " (spot nodes too)" if config.run.spot else ""
    note = f" {pool.accelerator}: {pool.note}." if pool.note else ""
    return (
        f"On a cluster, training waits for {nodes}{kind} with {count} free {pool.accelerator}; where there is none, "
        f"set run_gpu to another profile, or to none to train on a CPU.{note}"
    )
