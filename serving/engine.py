"""The model that a Bento carries: an ONNX generator and where it came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.inpainting.inpainter import Inpainter, open_onnx


@dataclass(frozen=True)
class Engine:
    """A generator ready to repair, and its provenance."""

    inpaint: Inpainter
    provenance: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Engine:
        """Open a model folder of a Bento: ``generator.onnx`` and ``provenance.json``."""
        provenance = json.loads((folder / "provenance.json").read_text())
        return cls(open_onnx(folder / "generator.onnx", provenance["stride"]), provenance)
