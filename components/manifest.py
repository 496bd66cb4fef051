"""Folders that are complete or absent, and the manifest that says what is in them.

A step writes beside its target, flushes, writes ``manifest.json`` last and renames: whoever finds the
folder finds all of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

import components

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class ManifestError(ValueError):
    """A folder that should hold a finished artifact does not."""


class Manifest(BaseModel):
    """What a step wrote: its kind, the digest of its content, and what it was made from."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    kind: str
    digest: str
    code_version: str
    made_from: dict[str, str] = {}
    facts: dict[str, Any] = {}


class Draft:
    """A folder being written: ``path`` to write to, ``facts`` and ``made_from`` for the manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = {}
        self.made_from: dict[str, str] = {}


@contextmanager
def complete_folder(target: Path, kind: str) -> Iterator[Draft]:
    """Write ``target`` atomically: everything and its manifest, or nothing.

    An older folder of the same kind is replaced once the new one is whole. Raises ``ManifestError`` where
    ``target`` holds something else.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        try:
            read_manifest(target, kind)
        except ManifestError:
            raise ManifestError(f"{target} exists and is no {kind} of ours; move it away or choose another") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Draft(Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)))
    try:
        yield draft
        manifest = Manifest(
            kind=kind,
            digest=folder_digest(draft.path),
            code_version=code_version(),
            made_from=draft.made_from,
            facts=draft.facts,
        )
        (draft.path / MANIFEST).write_text(manifest.model_dump_json(indent=2))
        draft.path.chmod(0o755)
        _flush(draft.path)
        if target.exists():
            shutil.rmtree(target)
        draft.path.rename(target)
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)


def copy_folder(source: Path, target: Path, kind: str) -> None:
    """Copy a finished folder to ``target``, atomically; where it is there already, do nothing.

    Raises ``ManifestError`` where ``source`` is none, and where the copy is not what the manifest says.
    """
    manifest = read_manifest(source, kind)
    with contextlib.suppress(ManifestError):
        if read_manifest(target, kind).digest == manifest.digest:
            return
    with complete_folder(target, kind) as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        draft.facts, draft.made_from = dict(manifest.facts), dict(manifest.made_from)
        if folder_digest(draft.path) != manifest.digest:
            raise ManifestError(f"{source} is not what its manifest says; run the step that made it again")


def write_file(target: Path, content: str | bytes) -> None:
    """Write one file atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def read_manifest(folder: Path, kind: str) -> Manifest:
    """Read a folder's manifest. Raises ``ManifestError`` when it is absent, broken or of another kind."""
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ManifestError(f"{folder} holds no finished {kind} ({MANIFEST} is missing); run its step again") from None
    except ValidationError as error:
        raise ManifestError(f"{path} cannot be read ({error.error_count()} problems); run its step again") from None
    if manifest.kind != kind:
        raise ManifestError(f"{folder} holds a {manifest.kind}, not a {kind}")
    if manifest.schema_version > SCHEMA_VERSION:
        raise ManifestError(f"{folder} was written by a newer Kintsugi; update this one")
    return manifest


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below ``folder``, the manifest left out."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


@cache
def code_version() -> str:
    """The release and a digest of the sources, e.g. ``0.1.0+1f3a5c7e``."""
    digest = hashlib.sha256()
    root = Path(components.__file__).parent.parent
    for path in sorted(p for folder in ("components", "serving") for p in (root / folder).rglob("*")):
        if path.suffix in (".py", ".html"):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return f"{components.__version__}+{digest.hexdigest()[:8]}"


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with a JSON object on every line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file inside a draft. NaN is refused: a score that is not a number is no score."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False))


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
