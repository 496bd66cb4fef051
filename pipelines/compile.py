"""Compile the pipeline to the YAML that the Kubeflow UI accepts and that ``kintsugi run`` runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from components.manifest import write_file


def compile_pipeline(target: Path, *, image: str | None = None) -> Path:
    """Write the compiled pipeline, all steps in ``image`` (default: the release's own name)."""
    from kfp.compiler import Compiler

    from components.steps import IMAGE
    from pipelines.training_pipeline import training_pipeline

    with tempfile.TemporaryDirectory() as scratch:
        compiled = Path(scratch) / "pipeline.yaml"
        Compiler().compile(training_pipeline, str(compiled))
        text = compiled.read_text()
    write_file(target, text.replace(f"image: {IMAGE}\n", f"image: {image or IMAGE}\n"))
    return target
