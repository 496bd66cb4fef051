"""The registered versions as a table."""

from __future__ import annotations

from rich.table import Table

from components.tracking import Registry


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
            f"{scores['ssim']:.4f}", f"{scores['psnr']:.2f}", f"{scores['hole_mse']:.5f}",
            version.tags.get("steps", ""),
            version.tags.get("promoted_at", "")[:16].replace("T", " "),
        )  # fmt: skip
    return table
