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
    """The container images of the steps, and of a training on GPUs; empty: the release's own names."""

    cpu: str = ""
    gpu: str = ""


def compile_pipeline(target: Path, images: Images = Images()) -> Path:
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
        text = compiled.read_text()
    text = text.replace(IMAGE, images.cpu or IMAGE).replace(GPU_IMAGE, images.gpu or GPU_IMAGE)
    spec, platform = yaml.load_all(text, yaml.CSafeLoader)
    if images.cpu and images.cpu == images.gpu:  # nothing to choose at run time, which kfp.local's DockerRunner cannot
        spec["deploymentSpec"]["executors"]["exec-train"]["container"]["image"] = images.cpu
    write_file(target.with_name(f"{target.stem}{COMPAT}.yaml"), _dump(spec, _without_limits(platform)))
    for name, field in spec["root"]["inputDefinitions"]["parameters"].items():
        if offered := choices(name):
            field["literals"] = offered
    write_file(target, _dump(spec, platform))
    return target


def _without_limits(platform: dict[str, Any]) -> dict[str, Any]:
    kubernetes = platform["platforms"]["kubernetes"]
    return {"platforms": {"kubernetes": {"deploymentSpec": kubernetes["deploymentSpec"]}}}


def _dump(*documents: dict[str, Any]) -> str:
    return yaml.dump_all(documents, Dumper=yaml.CSafeDumper, sort_keys=True, width=120)
