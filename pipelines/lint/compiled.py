"""A compiled pipeline, read: its tasks with what is around them, their containers, and what Kubernetes is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml


class LintError(ValueError):
    """The file is no compiled pipeline."""


@dataclass(frozen=True)
class Task:
    """One task of one graph; ``looped`` and ``guarded`` by a loop or an exit handler somewhere around it."""

    name: str
    spec: dict[str, Any]
    component: dict[str, Any]
    executor: str  # the label of its container; "" for a group of tasks, and for an importer, which has no pod
    looped: bool
    guarded: bool

    @property
    def loops(self) -> bool:
        """Whether the task is itself a loop."""
        return "parameterIterator" in self.spec or "artifactIterator" in self.spec

    @property
    def items(self) -> str:
        """The input that a loop takes its items from; ``""`` where they are written down, and where it is none."""
        items = self.spec.get("parameterIterator", {}).get("items", {})
        return str(items.get("inputParameter", ""))

    @property
    def inputs(self) -> dict[str, Any]:
        """Its parameters, and where each comes from."""
        return dict(self.spec.get("inputs", {}).get("parameters", {}))

    @property
    def ends_the_run(self) -> bool:
        """Whether it is an exit task: it is told how the others ended."""
        return _ends_the_run(self.spec)

    @property
    def artifacts(self) -> dict[str, str]:
        """The kinds of its output artifacts by name, as in ``{"metrics": "system.Metrics"}``."""
        outputs = self.component.get("outputDefinitions", {}).get("artifacts", {})
        return {name: artifact.get("artifactType", {}).get("schemaTitle", "") for name, artifact in outputs.items()}


class Compiled:
    """A compiled pipeline: its graph of tasks, executors and what Kubernetes is told about them."""

    def __init__(self, text: str, name: str = "the file") -> None:
        """Raises ``LintError`` where the text is no compiled pipeline."""
        try:
            documents = [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]
            self.text, self.spec = text, documents[0]
            self.root, self.components = self.spec["root"], self.spec.get("components", {})
            self.containers = {
                label: executor["container"]
                for label, executor in self.spec["deploymentSpec"]["executors"].items()
                if "container" in executor
            }
        except (yaml.YAMLError, IndexError, KeyError, TypeError) as error:
            raise LintError(
                f"{name} is no compiled pipeline ({type(error).__name__}); make one: make compile"
            ) from None
        platform = documents[1] if len(documents) > 1 else {}
        kubernetes = platform.get("platforms", {}).get("kubernetes", {})
        self.pods = kubernetes.get("deploymentSpec", {}).get("executors", {})
        self.limits = kubernetes.get("pipelineConfig", {})

    @property
    def fields(self) -> dict[str, dict[str, Any]]:
        """The parameters of the run form."""
        return dict(self.root.get("inputDefinitions", {}).get("parameters", {}))

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks, groups included, the outer ones first."""
        return list(self._walk(self.root, looped=False, guarded=False))

    def container(self, task: Task) -> dict[str, Any]:
        """The container of a task; empty for a group."""
        return dict(self.containers.get(task.executor, {}))

    def source(self, task: Task) -> str:
        """The code that kfp put into a task's command; ``""`` where it is another kind of container."""
        command = [str(part) for part in self.container(task).get("command", [])]
        return command[-1] if any("ephemeral_component.py" in part for part in command) else ""

    def keys(self, channel: str) -> set[str]:
        """Under which names tasks put out what groups know as ``channel``."""
        sources = (task.inputs.get(channel, {}).get("taskOutputParameter", {}) for task in self.tasks)
        return {str(source["outputParameterKey"]) for source in sources if source}

    def _walk(self, component: dict[str, Any], *, looped: bool, guarded: bool) -> Iterator[Task]:
        tasks = component.get("dag", {}).get("tasks", {})
        handled = {name for task in tasks.values() if _ends_the_run(task) for name in task.get("dependentTasks", [])}
        for name, spec in tasks.items():
            inner = self.components.get(spec["componentRef"]["name"], {})
            label = str(inner.get("executorLabel", ""))
            task = Task(name, spec, inner, label if label in self.containers else "", looped, guarded)
            yield task
            yield from self._walk(inner, looped=looped or task.loops, guarded=guarded or name in handled)


def _ends_the_run(spec: dict[str, Any]) -> bool:
    return any("taskFinalStatus" in source for source in spec.get("inputs", {}).get("parameters", {}).values())
