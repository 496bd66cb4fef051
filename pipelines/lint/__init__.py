"""What Kubeflow Pipelines and kfp.local run wrongly without a word, looked for in any compiled pipeline.

Every rule is a function over the compiled pipeline that yields a sentence per finding: what is wrong,
where, and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.lint import form, graph, pods, steps
from pipelines.lint.compiled import Compiled, LintError
from pipelines.lint.form import MAX_FIELDS

__all__ = ["MAX_FIELDS", "RULES", "Compiled", "LintError", "Rule", "inspect", "inspect_text"]

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
    rules = [rule for rule in RULES if not (allow_tags and rule is pods.images_by_digest)]
    return [f"{rule.__name__.replace('_', '-')}: {found}" for rule in rules for found in rule(compiled)]


RULES: tuple[Rule, ...] = (
    graph.conditions_on_single_outputs,
    graph.conditions_without_quotes,
    form.fields_have_defaults,
    form.fields_are_plain,
    form.fields_are_few,
    form.no_artifacts_at_the_root,
    graph.no_loops_in_exit_handlers,
    graph.no_retries_in_loops,
    pods.retries,
    graph.loops_on_single_outputs,
    graph.loops_take_their_items_alone,
    graph.groups_keep_their_names,
    steps.placeholders_have_inputs,
    steps.texts_are_short,
    graph.no_choice_between_artifacts,
    steps.no_missing_placeholders,
    steps.no_workspace,
    steps.lightweight_components,
    steps.metrics_write_a_file,
    steps.one_page_per_task,
    steps.every_task_has_a_page,
    steps.cache_keys_see_arguments,
    pods.timeouts,
    pods.requests_and_limits,
    pods.not_root,
    pods.pods_have_labels,
    pods.deadline,
    pods.images_have_tags,
    pods.images_by_digest,
)
