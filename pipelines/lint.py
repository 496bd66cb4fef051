"""Placeholder."""
from pathlib import Path


def inspect(path: Path, *, allow_tags: bool = False) -> list[str]:
    """x"""
    return []
