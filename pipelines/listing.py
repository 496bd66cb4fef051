"""The registered versions, and the history of the champions, as tables."""

from __future__ import annotations

from rich.table import Table

from components.tracking import CHAMPION, LedgerEntry, Registry, RegistryError

_SCORES = {"ssim": "{:.4f}", "psnr": "{:.2f}", "hole_mse": "{:.5f}"}


def version_table(registry: Registry) -> Table:
    """One row per version, newest first: aliases, scores, on which dataset (of its digest the first), when promoted.

    Scores compare where the dataset is the same.
    """
    table = Table(title=f"Versions of {registry.name}", title_justify="left")
    for heading in ("version", "alias", "SSIM", "PSNR dB", "hole MSE", "dataset", "steps", "promoted"):
        table.add_column(
            heading, justify="right" if heading in ("SSIM", "PSNR dB", "hole MSE", "steps") else "left", no_wrap=True
        )
    aliases: dict[str, list[str]] = {}
    for alias, number in registry.aliases().items():
        aliases.setdefault(number, []).append(alias)
    for version in registry.versions():
        scores = version.scores
        table.add_row(
            version.number,
            ", ".join(aliases.get(version.number, [])),
            *(layout.format(scores[name]) if name in scores else "" for name, layout in _SCORES.items()),
            version.tags.get("dataset", "")[:8],
            version.tags.get("steps", ""),
            version.tags.get("promoted_at", "")[:16].replace("T", " "),
        )  # fmt: skip
    return table


def champion_trouble(registry: Registry) -> str:
    """What a person should know of the champion, in a sentence; ``""`` for nothing."""
    try:
        champion = registry.servable_champion()
    except RegistryError as error:
        return str(error)
    alias = registry.aliases().get(CHAMPION, "none")
    if champion is None or alias == champion.number:
        return ""
    return (
        f"MLflow's alias champion points at {alias}, but the champion is version {champion.number}: a change was "
        "interrupted, or somebody moved the alias. 'kintsugi promote' puts it right, and promotes nothing"
    )


def history_table(history: list[LedgerEntry]) -> Table:
    """One row per change of the champion, newest first; of its training's MLflow run the first of the id."""
    table = Table(title="Champions", title_justify="left")
    for heading in ("when (UTC)", "champion", "in place of", "by", "how", "run", "why"):
        table.add_column(heading, overflow="fold")
    for entry in reversed(history):
        when = entry.at[:16].replace("T", " ")
        table.add_row(when, entry.version, entry.replaced or "none", entry.by, entry.action, entry.run[:8], entry.why)
    return table
