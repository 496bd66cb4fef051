"""The registered versions, and the history of the champions, as tables."""

from __future__ import annotations

from rich.table import Table

from components.tracking import LedgerEntry, Registry

_SCORES = {"ssim": "{:.4f}", "psnr": "{:.2f}", "hole_mse": "{:.5f}"}


def version_table(registry: Registry) -> Table:
    """One row per version, newest first: scores, aliases, when it was promoted."""
    table = Table(title=f"Versions of {registry.name}", title_justify="left")
    for heading in ("version", "alias", "SSIM", "PSNR dB", "hole MSE", "steps", "promoted"):
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
            version.tags.get("steps", ""),
            version.tags.get("promoted_at", "")[:16].replace("T", " "),
        )  # fmt: skip
    return table


def history_table(history: list[LedgerEntry]) -> Table:
    """One row per change of the champion, newest first; of its training's MLflow run the first of the id."""
    table = Table(title="Champions", title_justify="left")
    for heading in ("when (UTC)", "champion", "in place of", "by", "how", "run", "why"):
        table.add_column(heading, overflow="fold")
    for entry in reversed(history):
        when = entry.at[:16].replace("T", " ")
        table.add_row(when, entry.version, entry.replaced or "none", entry.by, entry.action, entry.run[:8], entry.why)
    return table
