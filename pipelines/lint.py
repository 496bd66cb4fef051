"""What Kubeflow Pipelines and kfp.local run wrongly without a word, looked for in any compiled pipeline.

Every rule is a function over the compiled pipeline that yields a sentence per finding: what is wrong,
where, and what to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

MAX_FIELDS = 21
_CHANNEL = re.compile(r"inputs\.parameter_values\['([^']*)'\]")
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'")
_CRASHING = ("{{$.pipeline_job_resource_name}}", "{{$.pipeline_job_create_time_utc}}")
_INPUT = re.compile(r"\{\{\$\.inputs\.parameters\['([^']*)'\]\}\}")
_LONGEST = 128 * 1024  # bytes of one argument of a command
_WORKSPACE = "{{$.workspace_path}}"
_RESOURCES = ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


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
        handled = {
            name
            for task in tasks.values()
            if any("taskFinalStatus" in source for source in task.get("inputs", {}).get("parameters", {}).values())
            for name in task.get("dependentTasks", [])
        }
        for name, spec in tasks.items():
            inner = self.components.get(spec["componentRef"]["name"], {})
            label = str(inner.get("executorLabel", ""))
            task = Task(name, spec, inner, label if label in self.containers else "", looped, guarded)
            yield task
            yield from self._walk(inner, looped=looped or task.loops, guarded=guarded or name in handled)


Rule = Callable[[Compiled], Iterator[str]]


def inspect(path: Path, *, allow_tags: bool = False) -> list[str]:
    """What is wrong with a compiled pipeline, a sentence each; ``allow_tags`` takes images without a digest.

    Raises ``LintError`` where the file cannot be read as one.
    """
    if not path.exists():
        raise LintError(f"there is no file {path}; make one: make compile")
    return inspect_text(path.read_text(), allow_tags=allow_tags, name=str(path))


def inspect_text(text: str, *, allow_tags: bool = False, name: str = "the file") -> list[str]:
    """The same for the text of a compiled pipeline."""
    compiled = Compiled(text, name)
    rules = [rule for rule in RULES if not (allow_tags and rule is images_by_digest)]
    return [f"{rule.__name__.replace('_', '-')}: {found}" for rule in rules for found in rule(compiled)]


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


def fields_have_defaults(compiled: Compiled) -> Iterator[str]:
    """The run form keeps Start disabled, and kfp.local fails, where a default is missing."""
    for name, field in compiled.fields.items():
        if field.get("defaultValue") is None:
            yield f"the parameter {name} has no default, so the form cannot be started; give it one that is not None"
        elif "literals" in field and field["defaultValue"] not in field["literals"]:
            yield f"the default of {name} is none of its literals, so the server refuses it; add it to them"


def fields_are_plain(compiled: Compiled) -> Iterator[str]:
    """Lists and dicts are a JSON editor in the form, and integers inside of them become floats."""
    for name, field in compiled.fields.items():
        if field.get("parameterType") in ("STRUCT", "LIST"):
            yield f"the parameter {name} is a list or dict, whose integers turn into floats; take a text and parse it"


def fields_are_few(compiled: Compiled) -> Iterator[str]:
    """The form is one long column in alphabetical order."""
    if (count := len(compiled.fields)) > MAX_FIELDS:
        yield f"the run form has {count} fields, more than {MAX_FIELDS} is too many to read; move some into one text"


def no_artifacts_at_the_root(compiled: Compiled) -> Iterator[str]:
    """Neither the form nor kfp.local can give one."""
    for name, artifact in compiled.root.get("inputDefinitions", {}).get("artifacts", {}).items():
        if not artifact.get("isOptional"):
            yield f"the pipeline wants an artifact {name}, which no form can give; import it from a URI parameter"


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


def retries(compiled: Compiled) -> Iterator[str]:
    """Nodes go away, and images are slow to come."""
    for task in compiled.tasks:
        if task.executor and not task.looped and "backoffDuration" not in task.spec.get("retryPolicy", {}):
            yield f"{task.name} is not tried again when its node goes away; set_retry(...) with a backoff_duration"


def no_choice_between_artifacts(compiled: Compiled) -> Iterator[str]:
    """OneOf of artifacts crashes kfp.local."""
    for name, component in compiled.components.items():
        for output, source in component.get("dag", {}).get("outputs", {}).get("artifacts", {}).items():
            if len(source.get("artifactSelectors", [])) > 1:
                yield f"{name} puts out {output} of one of several branches, which crashes locally; decide in a step"


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


def cache_keys_see_arguments(compiled: Compiled) -> Iterator[str]:
    """A cache key of one's own replaces the arguments."""
    for task in compiled.tasks:
        if task.spec.get("cachingOptions", {}).get("cacheKey"):
            yield f"{task.name} has a cache_key, which ignores its arguments; leave it out, and pass the code's version"


def timeouts(compiled: Compiled) -> Iterator[str]:
    """A pod that hangs holds its GPU forever."""
    for task in compiled.tasks:
        if task.executor and not compiled.pods.get(task.executor, {}).get("activeDeadlineSeconds"):
            yield f"{task.name} may hang forever; kubernetes.set_timeout(task, seconds)"


def requests_and_limits(compiled: Compiled) -> Iterator[str]:
    """Without them a pod is the first to be evicted, or takes its neighbours with it."""
    for task in compiled.tasks:
        resources = compiled.container(task).get("resources", {})
        missing = [name for name in _RESOURCES if not resources.get(f"resource{name}")]
        if task.executor and missing:
            names = " and ".join(re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower() for name in missing)
            yield f"{task.name} has no {names}; set_cpu_request, set_cpu_limit, set_memory_request, set_memory_limit"


def not_root(compiled: Compiled) -> Iterator[str]:
    """A namespace at Pod Security restricted refuses it."""
    for task in compiled.tasks:
        context = compiled.pods.get(task.executor, {}).get("securityContext", {})
        if task.executor and not (context.get("runAsNonRoot") and int(context.get("runAsUser", 0))):
            yield f"{task.name} may run as root; set_security_context(task, run_as_user=1000, run_as_non_root=True)"


def pods_have_labels(compiled: Compiled) -> Iterator[str]:
    """Network policies and dashboards find pods by them."""
    for task in compiled.tasks:
        if task.executor and not compiled.pods.get(task.executor, {}).get("podMetadata", {}).get("labels"):
            yield f"the pods of {task.name} have no label; kubernetes.add_pod_label(task, key, value)"


def deadline(compiled: Compiled) -> Iterator[str]:
    """Of the whole run; servers before 2.17, for which there are no literals, do not know one."""
    modern = any("literals" in field for field in compiled.fields.values())
    for name, called in (("activeDeadlineSeconds", "active_deadline_seconds"),
                         ("resourceTtlOnCompletion", "ttl_seconds_after_finished")):  # fmt: skip
        if modern and not compiled.limits.get(name):
            yield f"the pipeline has no {called}; @dsl.pipeline(pipeline_config=dsl.PipelineConfig({called}=...))"


def images_have_tags(compiled: Compiled) -> Iterator[str]:
    """``latest`` is another image tomorrow."""
    for image in _images(compiled):
        name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
        if "@" not in image and tag in ("", "latest"):
            yield f"the image {image} changes without notice; name a version of {name}, better a digest"


def images_by_digest(compiled: Compiled) -> Iterator[str]:
    """A tag can be moved, and caches do not see it."""
    for image in _images(compiled):
        if not _DIGEST.search(image):
            yield f"the image {image} has no digest and may change unseen; name it as name@sha256:... or --allow-tags"


def _images(compiled: Compiled) -> list[str]:
    """All images: of containers, and the constants from which one is chosen at run time."""
    fixed = {str(container["image"]) for container in compiled.containers.values()}
    chosen = {
        str(source["runtimeValue"]["constant"])
        for task in compiled.tasks
        for name, source in task.inputs.items()
        if name.endswith("_image") and "constant" in source.get("runtimeValue", {})
    }
    return sorted(image for image in fixed | chosen if not image.startswith("{{"))


RULES: tuple[Rule, ...] = (
    conditions_on_single_outputs, conditions_without_quotes, fields_have_defaults, fields_are_plain, fields_are_few,
    no_artifacts_at_the_root, no_loops_in_exit_handlers, no_retries_in_loops, retries, loops_on_single_outputs,
    loops_take_their_items_alone, groups_keep_their_names, placeholders_have_inputs, texts_are_short,
    no_choice_between_artifacts, no_missing_placeholders, no_workspace, lightweight_components, metrics_write_a_file,
    one_page_per_task, cache_keys_see_arguments, timeouts, requests_and_limits, not_root, pods_have_labels, deadline,
    images_have_tags, images_by_digest,
)  # fmt: skip
