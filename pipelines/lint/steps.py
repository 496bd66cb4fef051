"""Rules about single tasks: what they are given, what they are, and what they put out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pipelines.lint.compiled import Compiled

_CRASHING = ("{{$.pipeline_job_resource_name}}", "{{$.pipeline_job_create_time_utc}}")
_INPUT = re.compile(r"\{\{\$\.inputs\.parameters\['([^']*)'\]\}\}")
_LONGEST = 128 * 1024  # bytes of one argument of a command
_WORKSPACE = "{{$.workspace_path}}"


def placeholders_have_inputs(compiled: Compiled) -> Iterator[str]:
    """kfp forgets what an accelerator's count comes from on the way into an exit handler."""
    for task in compiled.tasks:
        for name in _INPUT.findall(json.dumps(compiled.container(task))):
            if name not in task.inputs and name not in task.component.get("inputDefinitions", {}).get("parameters", {}):
                yield f"{task.name} is not given {name}, so it gets no pod; task.register_pipeline_channels([...])"


def texts_are_short(compiled: Compiled) -> Iterator[str]:
    """kfp.local hands them over on a command line, and Linux takes no longer ones."""
    for task in compiled.tasks:
        for name, source in task.inputs.items():
            if len(str(source.get("runtimeValue", {}).get("constant", "")).encode()) > _LONGEST:
                yield f"{task.name} is given {name} of more than 128 KiB, which crashes on one machine; pass a file"


def no_missing_placeholders(compiled: Compiled) -> Iterator[str]:
    """They crash kfp.local."""
    for placeholder in _CRASHING:
        if placeholder in compiled.text:
            yield f"{placeholder} is unknown on one machine and crashes there; use PIPELINE_JOB_ID_PLACEHOLDER"


def no_workspace(compiled: Compiled) -> Iterator[str]:
    """kfp.local deletes it after every run."""
    if _WORKSPACE in compiled.text or "workspace" in compiled.limits:
        yield "the workspace is deleted after every run on one machine; keep state in a volume claim or an artifact"


def lightweight_components(compiled: Compiled) -> Iterator[str]:
    """kfp.local's subprocess runner takes nothing else."""
    for task in compiled.tasks:
        if task.executor and not compiled.source(task):
            yield f"{task.name} is no lightweight Python component, so it cannot run on one machine; use @dsl.component"


def metrics_write_a_file(compiled: Compiled) -> Iterator[str]:
    """A Metrics output without a file is a cache miss forever."""
    for task in compiled.tasks:
        for name, kind in task.artifacts.items():
            if task.executor and kind == "system.Metrics" and f"{name}.path" not in compiled.source(task):
                yield f"{task.name} writes no file for {name}, so no cache ever finds it; write one to {name}.path"


def one_page_per_task(compiled: Compiled) -> Iterator[str]:
    """The task page draws the first HTML and the first Markdown artifact alone."""
    for task in compiled.tasks:
        for kind in ("system.HTML", "system.Markdown"):
            if task.executor and (count := list(task.artifacts.values()).count(kind)) > 1:
                yield f"{task.name} puts out {count} pages ({kind}), of which only the first is drawn; make one of them"


def every_task_has_a_page(compiled: Compiled) -> Iterator[str]:
    """Whoever clicks a task sees its inputs alone; an exit task has nothing to show but how the run ended."""
    for task in compiled.tasks:
        if task.executor and not task.ends_the_run and "system.HTML" not in task.artifacts.values():
            yield f"{task.name} puts out no page of what it did; write one to an Output[HTML]"


def cache_keys_see_arguments(compiled: Compiled) -> Iterator[str]:
    """A cache key of one's own replaces the arguments."""
    for task in compiled.tasks:
        if task.spec.get("cachingOptions", {}).get("cacheKey"):
            yield f"{task.name} has a cache_key, which ignores its arguments; leave it out, and pass the code's version"
