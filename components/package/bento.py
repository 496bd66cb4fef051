"""Build a Bento without Docker: the service's code, the engine, exact pins and where it all came from."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from pathlib import Path
from typing import Any

import components

BENTO_FILE = "kintsugi.bento"
_PINNED = (
    "bentoml",
    "httptools",
    "isal",
    "numpy",
    "onnxruntime",
    "openvino",
    "pillow",
    "pydantic",
    "python-multipart",
    "uvloop",
)
_MODULES = (
    "components/__init__.py",
    "components/inpainting/__init__.py",
    "components/inpainting/engines.py",
    "components/inpainting/images.py",
    "components/inpainting/inpainter.py",
    "components/inpainting/png.py",
    "components/inpainting/repairing.py",
    "components/inpainting/tiling.py",
)


def build_bento(engine: Path, provenance: dict[str, Any], scratch: Path, target: Path) -> str:
    """Build a Bento from an ONNX file into ``target`` (a ``.bento`` archive); returns its tag.

    The store of the build lies in ``scratch``. The Bento holds no torch, kfp or mlflow.
    """
    os.environ["BENTOML_HOME"] = str(scratch / "store")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    import bentoml

    context = _context(engine, provenance, scratch / "context")
    bento = bentoml.bentos.build(
        "serving.service:KintsugiService",
        name=provenance["name"],
        version=f"v{provenance['version']}-{provenance['digest'][:12]}",
        labels={"model": provenance["name"], "version": provenance["version"]},
        include=["**/*"],
        python={"packages": _pins(), "lock_packages": False},
        build_ctx=str(context),
    )
    bento.export(str(target))
    return str(bento.tag)


def _context(engine: Path, provenance: dict[str, Any], context: Path) -> Path:
    root = Path(components.__file__).parent.parent
    service = [str(path.relative_to(root)) for path in sorted((root / "serving").glob("*.py"))]
    for name in (*_MODULES, *service):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, context / name)
    (context / "model").mkdir()
    shutil.copy(engine, context / "model" / "generator.onnx")
    (context / "model" / "provenance.json").write_text(json.dumps(provenance, indent=2))
    return context


def _pins() -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in _PINNED]
