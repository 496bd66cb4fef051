"""A model that is served: an exported generator and where it came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.inpainting.engines import EngineChoice, TileEngine, open_engine
from components.inpainting.images import Bytes


class Engine:
    """A generator ready to repair, and its provenance; a blind one also finds where a picture is damaged.

    For any number of threads.
    """

    def __init__(self, tiles: TileEngine, provenance: dict[str, Any]) -> None:
        self._tiles, self.provenance = tiles, provenance
        self.description = tiles.choice.describe()
        self.on_batch: Callable[[int], None] = lambda size: None
        """Told the size of every batch that the network is given."""
        self.parallel = tiles.choice.parallel
        """How many tiles it computes at a time."""
        tiles.on_batch = lambda size: self.on_batch(size)

    @classmethod
    def open(cls, folder: Path) -> Engine:
        """Open a model folder, ``generator.onnx`` and ``provenance.json``, as that says it runs the fastest."""
        provenance = json.loads((folder / "provenance.json").read_text())
        choice, blind = EngineChoice.of(provenance.get("engine", {})), bool(provenance.get("blind"))
        tiles = open_engine(folder / "generator.onnx", provenance["stride"], choice, blind=blind)
        tiles.prepare()
        return cls(tiles, provenance)

    @property
    def blind(self) -> bool:
        """Whether it repairs without a mask."""
        return self._tiles.blind

    def inpaint(self, image: Bytes, mask: Bytes, wanted: Callable[[], bool] = lambda: True) -> Bytes:
        """Repair uint8 ``H,W,3`` where the mask, uint8 ``H,W``, is 1.

        Raises ``engines.Abandoned`` as soon as ``wanted``, which is asked before every tile, is false.
        """
        return self._tiles.inpaint(image, mask, wanted)

    def find(self, image: Bytes, wanted: Callable[[], bool] = lambda: True) -> Bytes:
        """Where uint8 ``H,W,3`` is damaged: uint8 ``H,W`` of 0 and 1. Blind ones only."""
        return self._tiles.find(image, wanted)

    def close(self) -> None:
        """Free what the generator holds; no repair may be under way."""
        self._tiles.close()
