"""The promote step: the verified version becomes champion, if the champion is still the one it beat."""

from __future__ import annotations

from pathlib import Path

from components.config import ServeConfig, Settings
from components.inpainting.scores import Decision
from components.progress import say, step
from components.tracking import Registry


@step("promote")
def promote(config: ServeConfig, version: str, decision: Path, settings: Settings) -> str:
    """Move the ``champion`` alias to a version by compare-and-set; returns the version number.

    Where the gate's mode is ``manual`` that is left to ``kintsugi promote``, and ``""`` is returned. Raises
    ``RegistryError`` when another champion was chosen since the gate compared.
    """
    verdict = Decision.model_validate_json((decision / "decision.json").read_bytes())
    if verdict.mode == "manual":
        say(f"version {version} stays challenger until 'kintsugi promote', as gate_mode=manual asks")
        return ""
    promoted = Registry(settings, config.model_name).promote(version, verdict.champion, verdict.verdict)
    say(f"{promoted.name} version {promoted.number} is champion")
    return promoted.number
