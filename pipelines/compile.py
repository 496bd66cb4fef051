"""Compile the pipeline to the YAML that the Kubeflow UI accepts and that ``kintsugi run`` runs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.form import choices
from components.manifest import write_file

COMPAT = "-compat"


@dataclass(frozen=True)
class Images:
    """The container images of the steps; empty: the release's own names."""

    steps: str = ""
    gpu: str = ""  # of the train step


def compile_pipeline(target: Path, images: Images = Images()) -> Path:  # noqa: B008 (frozen)
    """Write the compiled pipeline, with dropdowns for Kubeflow Pipelines 2.17 and later; returns ``target``.

    Beside it goes a ``-compat`` file for older servers, which refuse what they do not know: without
    dropdowns, deadline and time to live.
    """
    from kfp.compiler import Compiler

    from components.steps import GPU_IMAGE, IMAGE
    from pipelines.training_pipeline import training_pipeline

    with tempfile.TemporaryDirectory() as scratch:
        compiled = Path(scratch) / "pipeline.yaml"
        Compiler().compile(training_pipeline, str(compiled))
        spec, platform = yaml.safe_load_all(compiled.read_text())
    for executor in spec["deploymentSpec"]["executors"].values():
        image = executor["container"]["image"]
        chosen = {IMAGE: images.steps, GPU_IMAGE: images.gpu}[image]
        executor["container"]["image"] = chosen or image
    plain = platform["platforms"]["kubernetes"]
    write_file(target.with_name(f"{target.stem}{COMPAT}.yaml"), _dump(spec, _without(platform, plain, "pipelineConfig")))
    for name, field in spec["root"]["inputDefinitions"]["parameters"].items():
        if offered := choices(name):
            field["literals"] = offered
    write_file(target, _dump(spec, platform))
    return target


def _without(platform: dict[str, Any], kubernetes: dict[str, Any], name: str) -> dict[str, Any]:
    return {"platforms": {"kubernetes": {key: value for key, value in kubernetes.items() if key != name}}}


def _dump(*documents: dict[str, Any]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=True, width=120)
