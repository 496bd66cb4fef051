"""The plan step: every parameter validated together, in seconds, before any data moves."""

from __future__ import annotations

from collections.abc import Mapping

from components.config import PipelineConfig
from components.manifest import code_version
from components.progress import say, step


@step("plan")
def plan(parameters: Mapping[str, object]) -> tuple[str, ...]:
    """Validate flat parameters; returns each section as JSON, in the order of ``PipelineConfig``.

    The code version stands in every section, so that a step's cache key changes with the code.
    Raises ``ConfigError`` naming every parameter that is wrong.
    """
    config = PipelineConfig.from_flat(parameters)
    say(f"{len(parameters)} parameters are valid")
    sections = [getattr(config, name) for name in PipelineConfig.model_fields]
    return tuple(s.model_copy(update={"code_version": code_version()}).model_dump_json() for s in sections)
