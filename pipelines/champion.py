"""The champion on this machine: its Bento fetched from MLflow into the local store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from components.config import Settings
from components.inpainting.inpainter import Inpainter, open_onnx
from components.manifest import read_json


class NoChampionError(ValueError):
    """There is no model to serve yet."""


@dataclass(frozen=True)
class ChampionBento:
    """The champion's Bento in the local store."""

    tag: str
    version: str
    folder: Path

    @property
    def model(self) -> Path:
        """The folder that holds ``generator.onnx`` and ``provenance.json``."""
        return self.folder / "src" / "model"

    def open(self) -> Inpainter:
        """The champion, ready to repair in this process."""
        stride = read_json(self.model / "provenance.json")["stride"]
        return open_onnx(self.model / "generator.onnx", stride)


def bento_environment(settings: Settings) -> dict[str, str]:
    """The environment under which the ``bentoml`` command sees this state folder's store."""
    return os.environ | {"BENTOML_HOME": str(settings.bento_home), "BENTOML_DO_NOT_TRACK": "True"}


def fetch_champion(settings: Settings, model_name: str) -> ChampionBento:
    """Find the champion in the registry and put its Bento into the local store, if it is not there.

    Raises ``NoChampionError`` when no model was promoted yet.
    """
    from components.tracking import Registry

    registry = Registry(settings, model_name)
    version = registry.champion()
    if version is None:
        raise NoChampionError(f"no model was promoted yet as {model_name!r} in {settings.state}; run 'make run' first")
    tag = version.tags.get("bento", "")
    if not tag:
        raise NoChampionError(f"champion version {version.number} was never packaged; run the pipeline again")
    name, _, bento_version = tag.partition(":")
    champion = ChampionBento(tag, version.number, settings.bento_home / "bentos" / name / bento_version)
    if not (champion.model / "provenance.json").exists():
        shutil.rmtree(champion.folder, ignore_errors=True)  # an import that was interrupted
        archive = registry.download(version, "bento/kintsugi.bento")
        settings.bento_home.mkdir(parents=True, exist_ok=True)
        imported = subprocess.run(
            [sys.executable, "-m", "bentoml", "import", str(archive)],
            env=bento_environment(settings), capture_output=True, text=True,
        )  # fmt: skip
        if imported.returncode:
            raise NoChampionError(f"the champion's Bento {tag} cannot be imported: {imported.stderr.strip()[-500:]}")
    return champion
