"""The promote step: the verified version becomes champion, if the champion is still the one it beat."""

from __future__ import annotations

from pathlib import Path

from components.config import ServeConfig, Settings
from components.manifest import write_file
from components.progress import say, step
from components.report import render
from components.tracking import LedgerEntry, Registry, RegistryError, Version

_NUM_ENTRIES = 20  # of the ledger, on the page


@step("promote")
def promote(config: ServeConfig, version: str, report: Path, settings: Settings) -> str:
    """Move the ``champion`` alias to a version by compare-and-set; returns the version number.

    Where the gate's mode is ``manual`` that is left to ``kintsugi promote``, and ``""`` is returned. ``report`` becomes
    a page (HTML) that says who is champion. Raises ``RegistryError`` when another champion was chosen since the gate
    compared; the page is written before.
    """
    registry = Registry(settings, config.model_name)
    candidate = registry.get(version)
    if candidate.decision.mode == "manual":
        _write(report, registry, candidate)
        say(f"version {version} stays challenger until 'kintsugi promote', as gate_mode=manual asks")
        return ""
    try:
        registry.promote(version, candidate.decision.verdict)
    except RegistryError as conflict:
        _write(report, registry, candidate, str(conflict))
        raise
    _write(report, registry, candidate)
    say(f"{registry.name} version {version} is champion")
    return version


def _write(report: Path, registry: Registry, version: Version, conflict: str = "") -> None:
    history = _history(registry)
    page = render(
        "promotion.html",
        title=f"Who is champion of {registry.name}?",
        name=registry.name,
        version=version.number,
        decision=version.decision,
        conflict=conflict,
        champion=history[-1].version if history else "",
        entries=list(reversed(history))[:_NUM_ENTRIES],
        num_entries=len(history),
        aliases=registry.aliases(),
        page=registry.page(version.number),
    )
    write_file(report, page)


def _history(registry: Registry) -> list[LedgerEntry]:
    """Every change of the champion; none where the ledger is damaged, which the conflict says."""
    try:
        return registry.history()
    except RegistryError:
        return []
