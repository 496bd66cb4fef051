"""Versions of a registered model for tests, without a training."""

from __future__ import annotations

import tempfile
from pathlib import Path

from components.config import Settings
from components.inpainting.scores import Decision
from components.tracking import Registry, open_run


def servable(champion: str = "") -> dict[str, str]:
    """Tags of a version that the gate admitted beside a champion, and that was packaged and verified."""
    decision = Decision(admitted=True, rules=[], champion=champion)
    return {"decision": decision.model_dump_json(), "bento": "kintsugi:1", "verified": "kintsugi:1"}


def pack(settings: Settings, registry: Registry, *numbers: str) -> None:
    """Put a file in the place of the Bento that ``servable`` names, for versions of one run."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "kintsugi.bento"
        file.write_bytes(b"a Bento")
        open_run(settings, registry.get(numbers[0]).run_id).log_file(file, "bento/1")
        for number in numbers:
            registry.record(number, {"bento/1/kintsugi.bento": file})
