"""The promote step: the verified version becomes champion, if the champion is still the one it beat."""

from __future__ import annotations

from pathlib import Path

from components.config import ServeConfig, Settings
from components.inpainting.scores import Decision
from components.manifest import write_file
from components.progress import say, step
from components.report import render
from components.tracking import Registry, RegistryError

_NUM_ENTRIES = 20  # of the ledger, on the page


@step("promote")
def promote(config: ServeConfig, version: str, decision: Path, report: Path, settings: Settings) -> str:
    """Move the ``champion`` alias to a version by compare-and-set; returns the version number.

    Where the gate's mode is ``manual`` that is left to ``kintsugi promote``, and ``""`` is returned. ``report`` becomes
    a page (HTML) that says who is champion. Raises ``RegistryError`` when another champion was chosen since the gate
    compared; the page is written before.
    """
    verdict = Decision.model_validate_json((decision / "decision.json").read_bytes())
    registry = Registry(settings, config.model_name)
    if verdict.mode == "manual":
        _write(report, registry, version, verdict)
        say(f"version {version} stays challenger until 'kintsugi promote', as gate_mode=manual asks")
        return ""
    try:
        promoted = registry.promote(version, verdict.champion, verdict.verdict)
    except RegistryError as conflict:
        _write(report, registry, version, verdict, str(conflict))
        raise
    _write(report, registry, version, verdict)
    say(f"{promoted.name} version {promoted.number} is champion")
    return promoted.number


def _write(report: Path, registry: Registry, version: str, decision: Decision, conflict: str = "") -> None:
    history, champion = registry.history(), registry.champion()
    page = render(
        "promotion.html",
        title=f"Who is champion of {registry.name}?",
        name=registry.name,
        version=version,
        decision=decision,
        conflict=conflict,
        champion=champion.number if champion else "",
        entries=list(reversed(history))[:_NUM_ENTRIES],
        num_entries=len(history),
        aliases=registry.aliases(),
        page=registry.page(version),
    )
    write_file(report, page)
