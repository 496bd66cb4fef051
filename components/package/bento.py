"""Build a Bento without Docker: the service's code, its page, the models, exact pins and where it all came from."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from components.inpainting.export import ENGINE
from components.manifest import folder_digest
from components.package.contents import ROOT, exact_pins, service_files

BENTO_FILE = "kintsugi.bento"
PROVENANCE = "provenance.json"
MODEL, BLIND = "model", "blind"
"""Folders of a Bento's models: what repairs under masks, and what repairs without where the first cannot."""


@dataclass(frozen=True)
class Packed:
    """A model to put into a Bento: its ONNX file, and what the server says of it."""

    engine: Path
    provenance: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write ``generator.onnx`` and ``provenance.json``."""
        folder.mkdir(parents=True)
        shutil.copy(self.engine, folder / ENGINE)
        (folder / PROVENANCE).write_text(json.dumps(self.provenance, indent=2))


def build_bento(models: Mapping[str, Packed], scratch: Path, target: Path) -> str:
    """Build a Bento with models by folder, ``MODEL`` at least, into ``target`` (a ``.bento`` archive); returns its tag.

    The files to build from are laid out in ``scratch``. The Bento holds no torch, kfp or mlflow.
    """
    os.environ["BENTOML_HOME"] = _store().name
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    import bentoml

    provenance, context = models[MODEL].provenance, _context(models, scratch / "context")
    bento = bentoml.bentos.build(
        "serving.service:KintsugiService",
        name=provenance["name"],
        version=f"v{provenance['version']}-{folder_digest(context)[:12]}",
        labels={"model": provenance["name"], "version": provenance["version"]},
        include=["**/*"],
        python={"packages": exact_pins(), "lock_packages": False},
        build_ctx=str(context),
    )
    bento.export(str(target))
    bentoml.bentos.delete(bento.tag)
    return str(bento.tag)


@cache
def _store() -> tempfile.TemporaryDirectory[str]:
    """BentoML's store for builds, until the process ends: BentoML keeps to the first that it is told."""
    return tempfile.TemporaryDirectory(prefix="kintsugi-bentos-")


def _context(models: Mapping[str, Packed], context: Path) -> Path:
    for path in service_files():
        copy = context / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for name, model in models.items():
        model.write(context / name)
    return context
