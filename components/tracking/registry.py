"""The registry of models: versions with tags, and the aliases that point at them.

A model version carries a description and tags (``digest``, ``weights``, ``dataset``, ``code``, ``policy``, ``scores``,
``decision``, ``files``, ``pipeline_run``, ``bento``, ``verified``, ``promoted_at``), and three aliases point at
versions: ``challenger``, ``champion`` and ``previous``. Who is champion is decided in the ledger; the last two aliases
follow it, and a call that dies half-way is completed by the next. An alias that somebody moves by hand decides nothing.

Whoever can write to MLflow can replace the files of a run. ``files`` holds the digests of those that a version is made
of, and nothing is taken from MLflow for it that has another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.config import Settings
from components.inpainting.scores import Decision
from components.manifest import file_digest
from components.tracking.client import GENERATOR_FOLDER, MODEL_TRAINING, connect, web_pages
from components.tracking.ledger import Entry, Ledger, insist, make_registered_model
from components.tracking.logged import link_version

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

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of the files that the version is made of, by their paths in its run."""
        files: dict[str, str] = json.loads(self.tags.get("files", "{}"))
        return files

    @property
    def decision(self) -> Decision:
        """What the gate said of it; of a version that somebody registered by hand, that it was not admitted."""
        said = self.tags.get("decision", "")
        return Decision.model_validate_json(said) if said else Decision(admitted=False, rules=[])

    @property
    def problem(self) -> str:
        """What speaks against serving it, as in "was never packaged"; ``""`` for nothing."""
        problems = {
            "was not admitted by the gate": not self.decision.admitted,
            "was never packaged": not self.tags.get("bento"),
            "was not verified since it was packaged": not self.tags.get("verified"),
            "did not repair alike when it was served": self.tags.get("verified") == "false",
        }
        return next((sentence for sentence, holds in problems.items() if holds), "")


class Registry:
    """The versions of one registered model."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._client, self.name, self._pages = connect(settings), name, web_pages(settings)
        self._ledger = Ledger(self._client, name)

    def register(self, run_id: str, tags: Mapping[str, str], description: str = "", logged_model: str = "") -> Version:
        """Register the generator that a run logged, and point ``challenger`` at it.

        A version with the same ``digest`` tag and run is not registered twice, not by two processes at once either;
        it gets the new tags. The champion is no challenger, however often it is registered. MLflow's pages show the
        version beside the logged model whose id is given.
        """
        if not self._equals(run_id, tags["digest"]):
            self._create(run_id, tags, description)
        version, *twins = self._equals(run_id, tags["digest"])
        for twin in twins:
            self._remove(twin)
        self.tag(version.number, tags)
        insist(self._client.update_model_version, self.name, version.number, description)
        if logged_model:
            link_version(self._client, logged_model, self.name, version.number)
        if _latest(self._ledger.history()) != version.number:
            insist(self._client.set_registered_model_alias, self.name, CHALLENGER, version.number)
        return self.get(version.number)

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

    def page(self, number: str) -> str:
        """The address of a version's page in MLflow; ``""`` where MLflow is no server."""
        return f"{self._pages}/models/{self.name}/versions/{number}?{MODEL_TRAINING}" if self._pages else ""

    def tag(self, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            insist(self._client.set_model_version_tag, self.name, number, key, value)

    def record(self, number: str, files: Mapping[str, Path]) -> None:
        """Note the digests of files that a version is made of, by their paths in its run, for ``download``."""
        found = {path: file_digest(file) for path, file in files.items()}
        self.tag(number, {"files": json.dumps(self.get(number).files | found)})

    def champion(self) -> Version | None:
        """The champion as the ledger has it, ``None`` before the first."""
        number = _latest(self._ledger.history())
        return self.get(number) if number else None

    def servable_champion(self) -> Version | None:
        """The champion, to serve it. Raises ``RegistryError`` where it may not be, since it is being packaged anew."""
        champion = self.champion()
        if champion and champion.problem:
            raise RegistryError(f"version {champion.number} of {self.name!r}, the champion, {champion.problem}")
        return champion

    def history(self) -> list[Entry]:
        """Every change of the champion, oldest first."""
        return self._ledger.history()

    def promote(self, number: str, expected_champion: str, why: str = "") -> Version:
        """Make a version champion, and ``previous`` the one it replaces.

        ``expected_champion`` is the version number the decision was made against, ``""`` for none;
        raises ``RegistryError`` when another one is champion by now, and for a version that the gate did not admit,
        or that was not packaged and verified. Promoting the champion changes nothing.
        """
        promoted = self.get(number)
        if _latest(self._ledger.history()) != number:
            self._change(promoted, "promote", expected_champion, why)
        self.settle()
        return promoted

    def challenger(self, number: str = "") -> Version:
        """The version to promote by hand: the one named, else the challenger.

        Raises ``RegistryError`` where there is none, and saying what speaks against it.
        """
        version = self.get(number) if number else self.aliased(CHALLENGER)
        if version is None:
            raise RegistryError(f"model {self.name!r} has no challenger to promote; see 'kintsugi models'")
        self._require_servable(version)
        return version

    def rollback(self, number: str, expected_champion: str, why: str = "") -> Version:
        """Make a former champion champion again. Raises ``RegistryError`` for others, and as ``promote``."""
        if number not in {entry.version for entry in self._ledger.history()}:
            raise RegistryError(
                f"version {number} of {self.name!r} was never champion, so there is no going back to it"
            )
        target = self.get(number)
        self._change(target, "rollback", expected_champion, why)
        self.settle()
        return target

    def _change(self, version: Version, action: Literal["promote", "rollback"], replaced: str, why: str) -> None:
        """Write an entry of the ledger. Raises ``RegistryError`` where somebody was faster, and as ``challenger``."""
        self._require_servable(version)
        entry = Entry(action=action, version=version.number, replaced=replaced, why=why, run=version.run_id)
        current = _latest(self._ledger.history())
        if current == entry.replaced and self._ledger.append(entry, self._source(version.run_id), version.run_id):
            return
        self.settle()
        current = _latest(self._ledger.history())
        raise RegistryError(
            f"version {entry.version} was compared with {_named(entry.replaced)}, but by now {_named(current)} "
            "is champion; run the pipeline again to compare with that one"
        )

    def _require_servable(self, version: Version) -> None:
        if version.problem:
            raise RegistryError(
                f"version {version.number} of {self.name!r} {version.problem}, so it does not become champion"
            )

    def settle(self) -> bool:
        """Bring aliases and tags in line with the ledger; whether they were not.

        That is so where somebody died between a change and its end, or moved an alias by hand.
        """
        settled, changed = None, False
        while (history := self._ledger.history()) and history[-1] != settled:
            settled = history[-1]
            changed |= self._project(settled)
        return changed

    def _project(self, latest: Entry) -> bool:
        told = {"promoted_at": latest.at, "promoted_by": latest.by, "replaced": latest.replaced, "why": latest.why}
        known, aliases = self.get(latest.version).tags, self.aliases()
        missing = {name: value for name, value in told.items() if known.get(name) != value}
        self.tag(latest.version, missing)
        wanted = {CHAMPION: latest.version} | ({PREVIOUS: latest.replaced} if latest.replaced else {})
        moved = {alias: number for alias, number in wanted.items() if aliases.get(alias) != number}
        for alias, number in moved.items():
            insist(self._client.set_registered_model_alias, self.name, alias, number)
        done = aliases.get(CHALLENGER) == latest.version
        if done:
            insist(self._client.delete_registered_model_alias, self.name, CHALLENGER)
        return bool(missing or moved or done)

    def download(self, version: Version, path: str = GENERATOR_FOLDER, into: Path | None = None) -> Path:
        """A local copy of an artifact of the version's run, in the folder ``into``; else the caller only reads it.

        Raises ``RegistryError`` where it is lost, and where a file is not the one that ``record`` took note of. What
        else lies in a folder is not looked at.
        """
        uri, where = f"{self._artifacts(version.run_id)}/{path}", str(into) if into else None
        named = f"version {version.number} of {self.name!r}"
        try:
            found = Path(download_artifacts(artifact_uri=uri, tracking_uri=self._client.tracking_uri, dst_path=where))
        except (MlflowException, OSError) as error:
            raise RegistryError(f"{named} has lost its {path} ({error}); restore it, or roll back") from None
        expected = {name: digest for name, digest in version.files.items() if f"{name}/".startswith(f"{path}/")}
        if not expected:
            raise RegistryError(f"{named} has no digest of its {path}; run the pipeline again")
        for name, digest in expected.items():
            _require_digest(found / Path(name).relative_to(path), digest, f"{named} is refused: its {name}")
        return found

    def _equals(self, run_id: str, digest: str) -> list[Version]:
        """The versions of one model, oldest first: whoever registers it at the same moment as others sees the same one.

        MLflow numbers versions one after the other, so that whoever has made one sees all with lower numbers.
        """
        return [v for v in reversed(self.versions()) if v.run_id == run_id and v.tags.get("digest") == digest]

    def _create(self, run_id: str, tags: Mapping[str, str], description: str) -> None:
        insist(make_registered_model, self._client, self.name)
        insist(
            self._client.create_model_version, self.name, self._source(run_id), run_id,
            tags=dict(tags), description=description,
        )  # fmt: skip

    def _remove(self, twin: Version) -> None:
        """Remove what was registered at the same moment as another; several may try."""
        try:
            insist(self._client.delete_model_version, self.name, twin.number)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise

    def _source(self, run_id: str) -> str:
        return f"{self._artifacts(run_id)}/{GENERATOR_FOLDER}"

    def _artifacts(self, run_id: str) -> str:
        return str(self._client.get_run(run_id).info.artifact_uri)


def _version(version: ModelVersion) -> Version:
    return Version(version.name, str(version.version), version.run_id or "", dict(version.tags))


def _require_digest(path: Path, digest: str, named: str) -> None:
    if (found := file_digest(path) if path.is_file() else "none") != digest:
        raise RegistryError(
            f"{named} has the digest {found[:12]}, the registry says {digest[:12]}; it was changed since; run the "
            "pipeline again, or roll back"
        )


def _latest(history: list[Entry]) -> str:
    """The champion's number; ``""`` before the first."""
    return history[-1].version if history else ""


def _named(number: str) -> str:
    return f"version {number}" if number else "no model"
