"""Rules about the graph: conditions, loops, exit handlers and groups."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipelines.lint.compiled import Compiled

_CHANNEL = re.compile(r"inputs\.parameter_values\['([^']*)'\]")
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'")


def conditions_on_single_outputs(compiled: Compiled) -> Iterator[str]:
    """kfp.local skips a branch on a named output and calls the run a success."""
    for task in compiled.tasks:
        for channel in _CHANNEL.findall(task.spec.get("triggerPolicy", {}).get("condition", "")):
            for key in compiled.keys(channel) - {"Output"}:
                yield (
                    f"{task.name} asks for the output {key!r}, a named one, and would be skipped in silence on one "
                    "machine; return that value alone and compare task.outputs['Output']"
                )


def conditions_without_quotes(compiled: Compiled) -> Iterator[str]:
    """A quote inside a compared string makes kfp.local skip both branches."""
    for task in compiled.tasks:
        condition = _CHANNEL.sub("channel", task.spec.get("triggerPolicy", {}).get("condition", ""))
        compared = [text[1:-1] for text in _STRING.findall(condition)]
        if any(quote in text for text in compared for quote in "'\"") or "'" in _STRING.sub("", condition):
            yield f"{task.name} compares a text with a quote in it, which skips both branches; compare without quotes"


def no_loops_in_exit_handlers(compiled: Compiled) -> Iterator[str]:
    """On a cluster the run fails, kubeflow/pipelines#12390."""
    for task in compiled.tasks:
        if task.loops and task.guarded:
            yield f"the loop {task.name} lies in an exit handler, where a cluster fails it; put it before the handler"


def no_retries_in_loops(compiled: Compiled) -> Iterator[str]:
    """A cluster ignores them, kubeflow/pipelines#12389."""
    for task in compiled.tasks:
        if task.looped and "retryPolicy" in task.spec:
            yield f"{task.name} lies in a loop, where a cluster ignores its retries; let the step itself try again"


def loops_on_single_outputs(compiled: Compiled) -> Iterator[str]:
    """kfp.local looks for the items in the output that a plain return makes, whatever was asked for."""
    for task in compiled.tasks:
        for key in compiled.keys(task.items) - {"Output"}:
            yield (
                f"the loop {task.name} is over the output {key!r}, a named one, which one machine does not find; call "
                "it Output, or return it alone"
            )


def loops_take_their_items_alone(compiled: Compiled) -> Iterator[str]:
    """kfp.local puts the loop's item in the place of every task output that is passed into a loop."""
    for task in compiled.tasks:
        given = {name for name, source in task.inputs.items() if "taskOutputParameter" in source} - {task.items}
        if task.loops and given:
            what = ", ".join(sorted(name.removeprefix("pipelinechannel--") for name in given))
            yield f"the loop {task.name} takes {what}, in whose place one machine puts the item; put it into the items"


def groups_keep_their_names(compiled: Compiled) -> Iterator[str]:
    """A server finds a group that others wait for or collect from by the name that the compiler gave it alone."""
    wanted = {
        place["producerTask"]
        for task in compiled.tasks
        for source in (*task.inputs.values(), *task.spec.get("inputs", {}).get("artifacts", {}).values())
        for place in source.values()
        if isinstance(place, dict) and "producerTask" in place
    }
    for task in compiled.tasks:
        name = task.spec.get("taskInfo", {}).get("name", task.name)
        if "dag" in task.component and task.name in wanted and name != task.name:
            yield f"{task.name} is called {name!r}, and a server does not find what others want of it; leave out name="


def no_choice_between_artifacts(compiled: Compiled) -> Iterator[str]:
    """OneOf of artifacts crashes kfp.local."""
    for name, component in compiled.components.items():
        for output, source in component.get("dag", {}).get("outputs", {}).get("artifacts", {}).items():
            if len(source.get("artifactSelectors", [])) > 1:
                yield f"{name} puts out {output} of one of several branches, which crashes locally; decide in a step"
