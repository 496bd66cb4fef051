"""The champion on this machine: its Bento fetched from MLflow into the local store, checked, and served."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.bentos import import_bento, run_server
from components.client import InpaintClient
from components.config import ServeConfig, Settings
from components.manifest import file_digest
from pipelines.follow import Follower, models_folder

if TYPE_CHECKING:
    from components.tracking import Registry, Version


class NoChampionError(ValueError):
    """There is no model to serve yet, or it is not the one that was packaged."""


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


def fetch_champion(settings: Settings, model_name: str) -> ChampionBento:
    """Find the champion in the registry and put its Bento into the local store, if it is not there.

    Raises ``NoChampionError`` when no model was promoted yet, and when a file here is not the one that was packaged;
    ``RegistryError`` where the champion may not be served, and when MLflow has other files than were packaged.
    """
    from components.tracking import Registry

    registry = Registry(settings, model_name)
    version = registry.servable_champion()
    if version is None:
        raise NoChampionError(f"no model was promoted yet as {model_name!r} in {settings.state}; run 'make run' first")
    name, _, bento_version = version.bento.partition(":")
    champion = ChampionBento(version.bento, version.number, settings.bento_home / "bentos" / name / bento_version)
    if not (champion.model / "provenance.json").exists():
        _import(registry, version, champion, settings)
    if file_digest(champion.model / "generator.onnx") != version.files.get(f"{version.bento_folder}/generator.onnx"):
        shutil.rmtree(champion.folder)
        raise NoChampionError(
            f"the model in {champion.folder} is not the one that was packaged as version {version.number}, so it was "
            "removed; start again to fetch it anew, or run the pipeline again"
        )
    return champion


@contextmanager
def champion_client(settings: Settings, model_name: str) -> Iterator[tuple[InpaintClient, str]]:
    """A client of the champion, served on this machine for nobody else as long as this lasts, and its version.

    Beside it serves whoever is champion of the blind model by now, not who was when the Bento was made.
    """
    champion, config = fetch_champion(settings, model_name), ServeConfig(model_name=model_name)
    key, models = secrets.token_urlsafe(), models_folder(settings, config)
    Follower(settings, config, models, lambda line: None).look()
    environment = {"KINTSUGI_API_KEYS": key, "KINTSUGI_MODELS": str(models)}
    with (
        run_server(champion.tag, settings.bento_home, environment) as server,
        InpaintClient(server.url, key, timeout=600) as client,
    ):
        yield client, str(client.model().get("version", champion.version))


def _import(registry: Registry, version: Version, champion: ChampionBento, settings: Settings) -> None:
    """Download the Bento and unpack it."""
    shutil.rmtree(champion.folder, ignore_errors=True)  # an import that was interrupted
    import_bento(registry.download(version, f"{version.bento_folder}/kintsugi.bento"), settings.bento_home)
