"""The registry of models: versions with tags, and the aliases that point at them.

A model version carries tags (``digest``, ``dataset``, ``code``, ``scores``, ``bento``, ``promoted_at``)
and three aliases point at versions: ``challenger``, ``champion`` and ``previous``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.config import Settings
from components.tracking.client import GENERATOR_FOLDER, connect

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"


class RegistryError(ValueError):
    """The registry does not hold what was asked for, or changed meanwhile."""


@dataclass(frozen=True)
class Version:
    """One registered model version."""

    name: str
    number: str
    run_id: str
    tags: dict[str, str]

    @property
    def scores(self) -> dict[str, float]:
        """Overall test scores at registration: ``ssim``, ``psnr``, ``hole_mse``."""
        scores: dict[str, float] = json.loads(self.tags.get("scores", "{}"))
        return scores


class Registry:
    """The versions of one registered model."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._client, self.name = connect(settings), name

    def register(self, run_id: str, tags: Mapping[str, str]) -> Version:
        """Register the generator that a run logged, and point ``challenger`` at it.

        A version with the same ``digest`` tag and run is not registered twice.
        """
        found = [v for v in self.versions() if v.run_id == run_id and v.tags.get("digest") == tags["digest"]]
        version = found[0] if found else self._create(run_id, tags)
        self._client.set_registered_model_alias(self.name, CHALLENGER, version.number)
        return version

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        found = self._client.search_model_versions(f"name = '{self.name}'")
        return sorted((_version(v) for v in found), key=lambda v: -int(v.number))

    def aliased(self, alias: str) -> Version | None:
        """The version an alias points at, or ``None``."""
        try:
            return _version(self._client.get_model_version_by_alias(self.name, alias))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def aliases(self) -> dict[str, str]:
        """Every alias and the version number it points at."""
        try:
            aliases = self._client.get_registered_model(self.name).aliases
            return {alias: str(number) for alias, number in aliases.items()}  # the sqlite store gives integers
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    def get(self, number: str) -> Version:
        """One version. Raises ``RegistryError`` naming those there are."""
        versions = self.versions()
        for version in versions:
            if version.number == number:
                return version
        known = ", ".join(v.number for v in versions) or "none"
        raise RegistryError(f"model {self.name!r} has no version {number}; it has {known}")

    def tag(self, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(self.name, number, key, value)

    def promote(self, number: str, expected_champion: str) -> Version:
        """Move ``champion`` to a version, and ``previous`` to the one it replaces.

        ``expected_champion`` is the version number the decision was made against, ``""`` for none;
        raises ``RegistryError`` when another one is champion by now. Promoting the champion is a no-op.
        """
        current = self.aliases().get(CHAMPION, "")
        if current == number:
            return self.get(number)
        if current != expected_champion:
            raise RegistryError(
                f"version {number} was compared with {_named(expected_champion)}, but by now {_named(current)} "
                "is champion; run the pipeline again to compare with that one"
            )
        promoted = self.get(number)
        self.tag(number, {"promoted_at": datetime.now(UTC).isoformat(timespec="seconds"), "replaced": current})
        if current:
            self._client.set_registered_model_alias(self.name, PREVIOUS, current)
        self._client.set_registered_model_alias(self.name, CHAMPION, number)
        if self.aliases().get(CHALLENGER) == number:
            self._client.delete_registered_model_alias(self.name, CHALLENGER)
        return promoted

    def download(self, version: Version, path: str = GENERATOR_FOLDER) -> Path:
        """A local copy of an artifact of the version's run; the caller only reads it."""
        uri = f"{self._artifacts(version.run_id)}/{path}"
        try:
            return Path(download_artifacts(artifact_uri=uri, tracking_uri=self._client.tracking_uri))
        except (MlflowException, OSError) as error:
            raise RegistryError(f"version {version.number} of {self.name!r} has lost its {path}: {error}") from None

    def _create(self, run_id: str, tags: Mapping[str, str]) -> Version:
        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self._artifacts(run_id)}/{GENERATOR_FOLDER}"
        return _version(self._client.create_model_version(self.name, source, run_id, tags=dict(tags)))

    def _artifacts(self, run_id: str) -> str:
        return str(self._client.get_run(run_id).info.artifact_uri)


def _version(version: ModelVersion) -> Version:
    return Version(version.name, str(version.version), version.run_id or "", dict(version.tags))


def _named(number: str) -> str:
    return f"version {number}" if number else "no model"
