"""Every rule of ``kintsugi lint`` on a pipeline that breaks it, and on one that does not."""

# No postponed annotations here: kfp reads them as types.
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from kfp import dsl
from kfp.compiler import Compiler

from pipelines.compile import Images, compile_pipeline
from pipelines.lint import RULES, LintError, inspect, inspect_text

DIGEST = "registry.example/cpu@sha256:" + 64 * "a"


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def ask(text: str = "") -> bool:
    """One plain value."""
    return bool(text)


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def ask_more(text: str) -> NamedTuple("Answers", [("certain", bool)]):
    """A named value."""
    return (bool(text),)


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def word(text: str = "") -> str:
    """A text."""
    return text


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def draw(page: dsl.Output[dsl.HTML]):
    """One page."""


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def draw_two(page: dsl.Output[dsl.HTML], other: dsl.Output[dsl.HTML]):
    """Two pages."""


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def count(metrics: dsl.Output[dsl.Metrics]):
    """Metrics without a file."""
    metrics.log_metric("number", 1)


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def count_down(metrics: dsl.Output[dsl.Metrics]):
    """Metrics with one."""
    open(metrics.path, "w").close()


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def end(status: dsl.PipelineTaskFinalStatus):
    """An exit task."""
    print(status.state)


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def list_words(text: str = "") -> list:
    """Texts."""
    return [text]


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def list_more(text: str) -> NamedTuple("Lists", [("texts", list)]):
    """Texts by name."""
    return ([text],)


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def join(text: str, other: str = ""):
    """Two texts."""
    print(text, other)


@dsl.component(base_image=DIGEST, install_kfp_package=False)
def read(pictures: dsl.Input[dsl.Dataset]):
    """What was imported."""
    print(pictures.uri)


@dsl.container_component
def shell():
    """No Python."""
    return dsl.ContainerSpec(image=DIGEST, command=["true"])


def condition_on_a_named_output(text: str = ""):
    with dsl.If(ask_more(text=text).outputs["certain"] == True):  # noqa: E712
        ask(text=text)


def condition_on_the_single_output(text: str = ""):
    with dsl.If(ask(text=text).output == True):  # noqa: E712
        ask(text=text)


def condition_with_a_quote(text: str = ""):
    with dsl.If(word(text=text).output == "it's"):
        ask(text=text)


def condition_on_a_text(text: str = ""):
    with dsl.If(word(text=text).output == "its"):
        ask(text=text)


def loop_in_an_exit_handler(text: str = ""):
    with dsl.ExitHandler(end()), dsl.ParallelFor(["a", "b"]) as item:
        word(text=item)


def loop_before_an_exit_handler(text: str = ""):
    with dsl.ParallelFor(["a", "b"]) as item:
        word(text=item)
    with dsl.ExitHandler(end()):
        word(text=text)


def retry_in_a_loop(text: str = ""):
    with dsl.ParallelFor(["a", "b"]) as item:
        word(text=item).set_retry(2, backoff_duration="1s")


def retry_beside_a_loop(text: str = ""):
    with dsl.ParallelFor(["a", "b"]) as item:
        word(text=item)
    word(text=text).set_retry(2, backoff_duration="1s")


def loop_over_a_named_output(text: str = ""):
    with dsl.ParallelFor(list_more(text=text).outputs["texts"]) as item:
        word(text=item)


def loop_over_the_single_output(text: str = ""):
    with dsl.ParallelFor(list_words(text=text).output) as item:
        join(text=item, other=text)


def loop_that_takes_another_output(text: str = ""):
    other = word(text=text)
    with dsl.ParallelFor(list_words(text=text).output) as item:
        join(text=item, other=other.output)


def exit_handler_with_a_name(text: str = ""):
    with dsl.ExitHandler(end(), name="train-and-decide"):
        word(text=text)


def condition_with_a_name(text: str = ""):
    with dsl.If(ask(text=text).output == True, name="asked"):  # noqa: E712
        ask(text=text)


def long_text(text: str = ""):
    word(text=(128 * 1024 + 1) * "a")


def importer(uri: str = "gs://pictures/cats"):
    read(pictures=dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset).output)


def no_default(text: str):
    word(text=text)


def a_list(texts: list = ["a"]):  # noqa: B006
    word(text=str(texts))


def an_artifact(page: dsl.Input[dsl.HTML]):
    word()


def artifacts_of_branches(text: str = "") -> dsl.HTML:
    answer = ask(text=text)
    with dsl.If(answer.output == True):  # noqa: E712
        one = draw()
    with dsl.Else():
        two = draw()
    return dsl.OneOf(one.outputs["page"], two.outputs["page"])


def two_pages(text: str = ""):
    draw_two()


def one_page(text: str = ""):
    draw()


def no_page(text: str = ""):
    count_down()


def one_page_and_an_exit_task(text: str = ""):
    with dsl.ExitHandler(end()):
        draw()


def metrics_without_a_file(text: str = ""):
    count()


def metrics_with_a_file(text: str = ""):
    count_down()


def own_cache_key(text: str = ""):
    word(text=text).set_caching_options(True, cache_key="mine")


def own_container(text: str = ""):
    shell()


def placeholder(text: str = ""):
    word(text=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER)


def run_id(text: str = ""):
    word(text=dsl.PIPELINE_JOB_ID_PLACEHOLDER)


def workspace(text: str = ""):
    word(text=dsl.WORKSPACE_PATH_PLACEHOLDER)


def compiled(function: Callable[..., Any], folder: Path) -> str:
    config = dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi")) if function is workspace else None
    pipeline = dsl.pipeline(name=function.__name__.replace("_", "-"), pipeline_config=config)(function)
    Compiler().compile(pipeline, str(folder / "pipeline.yaml"))
    return (folder / "pipeline.yaml").read_text()


def found(text: str) -> set[str]:
    return {finding.partition(": ")[0] for finding in inspect_text(text)}


GRAPHS = [
    ("conditions-on-single-outputs", condition_on_a_named_output, condition_on_the_single_output),
    ("conditions-without-quotes", condition_with_a_quote, condition_on_a_text),
    ("no-loops-in-exit-handlers", loop_in_an_exit_handler, loop_before_an_exit_handler),
    ("no-retries-in-loops", retry_in_a_loop, retry_beside_a_loop),
    ("fields-have-defaults", no_default, run_id),
    ("fields-are-plain", a_list, run_id),
    ("no-artifacts-at-the-root", an_artifact, run_id),
    ("no-choice-between-artifacts", artifacts_of_branches, one_page),
    ("one-page-per-task", two_pages, one_page),
    ("every-task-has-a-page", no_page, one_page_and_an_exit_task),
    ("metrics-write-a-file", metrics_without_a_file, metrics_with_a_file),
    ("cache-keys-see-arguments", own_cache_key, run_id),
    ("lightweight-components", own_container, run_id),
    ("no-missing-placeholders", placeholder, run_id),
    ("no-workspace", workspace, run_id),
    ("loops-on-single-outputs", loop_over_a_named_output, loop_over_the_single_output),
    ("loops-take-their-items-alone", loop_that_takes_another_output, loop_over_the_single_output),
    ("groups-keep-their-names", exit_handler_with_a_name, condition_with_a_name),
    ("texts-are-short", long_text, run_id),
]


@pytest.mark.parametrize(("rule", "failing", "passing"), GRAPHS, ids=[rule for rule, *_ in GRAPHS])
def test_a_rule_finds_a_graph_that_breaks_it_and_no_other(
    rule: str, failing: Callable[..., Any], passing: Callable[..., Any], tmp_path: Path
) -> None:
    assert rule in found(compiled(failing, tmp_path))
    assert rule not in found(compiled(passing, tmp_path))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our own pipeline, which breaks no rule."""
    target = tmp_path_factory.mktemp("compiled") / "kintsugi.yaml"
    return compile_pipeline(target, Images(DIGEST, DIGEST.replace("cpu", "gpu"))).read_text()


def changed(text: str, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> str:
    spec, platform = yaml.load_all(text, yaml.CSafeLoader)
    change(spec, platform["platforms"]["kubernetes"])
    return yaml.dump_all([spec, platform], Dumper=yaml.CSafeDumper)


def trained(kubernetes: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = kubernetes["deploymentSpec"]["executors"]["exec-train"]
    return pod


def container(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["deploymentSpec"]["executors"]["exec-gate"]["container"]
    return found


def train_task(spec: dict[str, Any]) -> dict[str, Any]:
    graphs = (component.get("dag", {}).get("tasks", {}) for component in spec["components"].values())
    task: dict[str, Any] = next(tasks["train"] for tasks in graphs if "train" in tasks)
    return task


CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "timeouts": lambda spec, pods: trained(pods).pop("activeDeadlineSeconds"),
    "requests-and-limits": lambda spec, pods: container(spec)["resources"].pop("resourceMemoryLimit"),
    "not-root": lambda spec, pods: trained(pods)["securityContext"].update(runAsUser="0"),
    "pods-have-labels": lambda spec, pods: trained(pods).pop("podMetadata"),
    "deadline": lambda spec, pods: pods.pop("pipelineConfig"),
    "retries": lambda spec, pods: spec["root"]["dag"]["tasks"]["prepare"].pop("retryPolicy"),
    "placeholders-have-inputs": lambda spec, pods: train_task(spec)["inputs"]["parameters"].pop(
        "pipelinechannel--plan-accelerator_limit"
    ),
    "images-by-digest": lambda spec, pods: container(spec).update(image="registry.example/cpu:1.0"),
    "images-have-tags": lambda spec, pods: container(spec).update(image="registry.example:5000/cpu"),
    "fields-are-few": lambda spec, pods: spec["root"]["inputDefinitions"]["parameters"].update(
        more={"defaultValue": "", "parameterType": "STRING"}
    ),
    "fields-have-defaults": lambda spec, pods: spec["root"]["inputDefinitions"]["parameters"]["run_gpu"].update(
        defaultValue="k80"
    ),
}


def test_our_own_pipeline_breaks_no_rule(ours: str) -> None:
    assert inspect_text(ours) == []


@pytest.mark.parametrize("rule", CHANGES)
def test_a_rule_finds_what_was_taken_from_our_pipeline(rule: str, ours: str) -> None:
    assert found(changed(ours, CHANGES[rule])) - {"images-by-digest"} - {rule} == set()
    assert rule in found(changed(ours, CHANGES[rule]))


def test_an_importer_has_no_pod_to_ask_for(tmp_path: Path) -> None:
    assert not any("importer" in finding for finding in inspect_text(compiled(importer, tmp_path)))


def test_images_that_are_chosen_at_run_time_are_seen(tmp_path: Path) -> None:
    target = compile_pipeline(tmp_path / "kintsugi.yaml", Images(DIGEST, "registry.example/gpu:latest"))
    findings = inspect(target, allow_tags=True)
    assert [finding.partition(", ")[0] for finding in findings] == [
        "images-have-tags: the image registry.example/gpu:latest changes without notice; name a version of gpu"
    ]
    assert inspect(target.with_name("kintsugi-compat.yaml"), allow_tags=True) == findings


def test_every_rule_has_its_examples() -> None:
    assert {rule.__name__.replace("_", "-") for rule in RULES} == {rule for rule, *_ in GRAPHS} | set(CHANGES)


def test_what_is_no_pipeline_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LintError, match="there is no file"):
        inspect(tmp_path / "none.yaml")
    for text in ("", "a: b", "{", "- a"):
        with pytest.raises(LintError, match="is no compiled pipeline"):
            inspect_text(text)
