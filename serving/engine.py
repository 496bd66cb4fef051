"""A model that is served: an ONNX generator and where it came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.inpainting.images import Bytes
from components.inpainting.inpainter import Inpainter, open_onnx, usable_cores


class Engine:
    """A generator ready to repair, and its provenance; a blind one also finds where a picture is damaged."""

    def __init__(
        self, inpaint: Inpainter, provenance: dict[str, Any], find: Callable[[Bytes], Bytes] | None = None
    ) -> None:
        self._inpaint, self._find, self.provenance = inpaint, find, provenance
        self.description = {"runtime": "onnxruntime", "precision": "fp32", "threads": usable_cores()}
        self.on_batch: Callable[[int], None] = lambda size: None
        """Told the size of every batch that the network is given."""

    @classmethod
    def open(cls, folder: Path) -> Engine:
        """Open a model folder: ``generator.onnx`` and ``provenance.json``."""
        provenance = json.loads((folder / "provenance.json").read_text())
        return cls(open_onnx(folder / "generator.onnx", provenance["stride"]), provenance)

    @property
    def blind(self) -> bool:
        """Whether it repairs without a mask."""
        return self._find is not None

    def inpaint(self, image: Bytes, mask: Bytes, wanted: Callable[[], bool] = lambda: True) -> Bytes:
        """Repair uint8 ``H,W,3`` where the mask, uint8 ``H,W``, is 1."""
        self.on_batch(1)
        return self._inpaint(image, mask)

    def find(self, image: Bytes, wanted: Callable[[], bool] = lambda: True) -> Bytes:
        """Where uint8 ``H,W,3`` is damaged: uint8 ``H,W`` of 0 and 1. Blind ones only."""
        assert self._find is not None
        return self._find(image)

    def close(self) -> None:
        """Free what the generator holds."""
