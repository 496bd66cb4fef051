"""The plan step: every parameter validated together, in seconds, before any data moves."""

from __future__ import annotations

from collections.abc import Mapping

from components.config import PipelineConfig, ReadOrder
from components.manifest import code_version
from components.progress import say, step


@step("plan")
def plan(parameters: Mapping[str, object]) -> tuple[str | list[str], ...]:
    """Validate flat parameters; returns each section as JSON, in the order of ``PipelineConfig``, and the read orders.

    The code version stands in every section, so that a step's cache key changes with the code.
    Raises ``ConfigError`` naming every parameter that is wrong.
    """
    config = PipelineConfig.from_flat(parameters)
    say(f"{len(parameters)} parameters are valid")
    sections = [getattr(config, name) for name in PipelineConfig.model_fields]
    planned = [s.model_copy(update={"code_version": code_version()}) for s in sections]
    orders = [ReadOrder(config=planned[0], shard=shard).model_dump_json() for shard in config.data.shards]
    return *(section.model_dump_json() for section in planned), orders
