"""The registry of models: versions with tags, and the aliases that point at them.

A model version carries a description and tags (``digest``, ``weights``, ``dataset``, ``code``, ``policy``, ``scores``,
``decision``, ``files``, ``pipeline_run``, ``bento``, ``verified``, ``promoted_at``), and three aliases point at
versions: ``challenger``, ``champion`` and ``previous``. Who is champion is decided in the ledger; the last two aliases
follow it, and a call that dies half-way is completed by the next. An alias that somebody moves by hand decides nothing.

The files of a run can be replaced, by accident or by whoever may write there. ``files`` holds the digests of those that
a version is made of, and nothing is taken from MLflow for it that has another. (Who may change tags as well can change
these, too: keep the right to write to MLflow with the pipeline.)
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from components.config import Settings
from components.manifest import file_digest
from components.tracking.client import GENERATOR_FOLDER, MODEL_TRAINING, connect, web_pages
from components.tracking.ledger import Entry, HistoryError, Ledger, insist, make_registered_model, read_model
from components.tracking.logged import link_version
from components.tracking.versions import RegistryError, Version

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"


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
        champion = self._champion(self._ledger.history())
        if champion is None or champion.number != version.number:
            insist(self._client.set_registered_model_alias, self.name, CHALLENGER, version.number)
        return self.get(version.number)

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        found = self._client.search_model_versions(f"name = '{self.name}'")
        return sorted((Version.of(v) for v in found), key=lambda v: -int(v.number))

    def aliased(self, alias: str) -> Version | None:
        """The version an alias points at, or ``None``."""
        try:
            return Version.of(self._client.get_model_version_by_alias(self.name, alias))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def aliases(self) -> dict[str, str]:
        """Every alias and the version number it points at."""
        return read_model(self._client, self.name)[0]

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

    def verified(self, number: str, bento: str, alike: bool) -> None:
        """Note whether a Bento of a version repairs as its network does: only such a one is served."""
        known = self.get(number).bento
        self.tag(
            number, {"verified": bento} if alike else {"failed": bento, "verified": "" if known == bento else known}
        )

    def champion(self) -> Version | None:
        """The champion as the ledger has it; ``None`` before the first, and where its version was deleted.

        Raises ``HistoryError`` where the ledger is damaged.
        """
        return self._champion(self._ledger.history())

    def servable_champion(self) -> Version | None:
        """The champion, to serve it. Raises ``RegistryError`` where it is gone or not verified, and as ``champion``."""
        history = self._ledger.history()
        champion = self._champion(history)
        if history and champion is None:
            raise RegistryError(
                f"version {history[-1].version} of {self.name!r}, the champion, was deleted, or the model was renamed; "
                f"'kintsugi rollback VERSION --model-name {self.name}' goes back to a former champion, and the next "
                "run makes a new one"
            )
        if champion and champion.problem:
            raise RegistryError(f"version {champion.number} of {self.name!r}, the champion, {champion.problem}")
        return champion

    def history(self) -> list[Entry]:
        """Every change of the champion, oldest first. Raises ``HistoryError`` where a part of it was deleted."""
        return self._ledger.history()

    def promote(self, number: str, why: str = "") -> Version:
        """Make a version champion, and ``previous`` the one it replaces, if that is who the gate compared it with.

        Raises ``RegistryError`` when another one is champion by now, when the version was champion already and was
        replaced, and for a version that the gate did not admit, that was not packaged and verified, or whose files are
        gone. Promoting the champion changes nothing.
        """
        promoted, history = self.get(number), self._ledger.history()
        champion = self._champion(history)
        if champion is None or champion.number != number:
            if _was_champion(promoted, history):
                because = f" ({history[-1].why})" if history and history[-1].why else ""
                raise RegistryError(
                    f"version {number} of {self.name!r} was champion already, and was replaced{because}; "
                    f"'kintsugi rollback {number}' goes back to it"
                )
            self._change(promoted, "promote", promoted.decision.champion, why)
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
        """Make a former champion champion again, in place of ``expected_champion``, ``""`` for none.

        Raises ``RegistryError`` for one that never was, whose files are gone, or that may not be served, and where
        another is champion by now.
        """
        target = self.get(number)
        if not _was_champion(target, self._ledger.history()):
            raise RegistryError(
                f"version {number} of {self.name!r} was never champion, so there is no going back to it"
            )
        if number == expected_champion:
            raise RegistryError(f"version {number} of {self.name!r} is champion already")
        self._change(target, "rollback", expected_champion, why)
        self.settle()
        return target

    def restore(self, number: str, why: str = "") -> Version:
        """Say who is champion where the ledger was damaged, and begin its history anew.

        Raises ``RegistryError`` where the ledger is whole, as after another's restore, and for a version that may not
        be served or whose files are gone.
        """
        target, superseded = self.get(number), self._ledger.seen()
        try:
            self._ledger.history()
        except HistoryError:
            self._change(target, "restore", "", why, superseded)
            self.settle()
            return target
        raise RegistryError(f"the history of {self.name!r} is whole; see 'kintsugi models' for who is champion")

    def _champion(self, history: list[Entry]) -> Version | None:
        """The version that the last entry names, and no other that got its number later."""
        if not history:
            return None
        wanted, run = history[-1].version, history[-1].run
        return next((v for v in self.versions() if v.number == wanted and (not run or v.run_id == run)), None)

    def _change(
        self,
        version: Version,
        action: Literal["promote", "rollback", "restore"],
        replaced: str,
        why: str,
        superseded: str = "",
    ) -> None:
        """Write an entry of the ledger.

        Raises ``RegistryError`` where somebody was faster, and for a version that may not be served or is not there.
        """
        self._require_servable(version)
        with tempfile.TemporaryDirectory(prefix="kintsugi-") as scratch:
            self.download(version, version.bento_folder, Path(scratch))
        after, current = superseded, replaced
        if action != "restore":
            history = self._ledger.history()
            champion = self._champion(history)
            after, current = history[-1].id if history else "", champion.number if champion else ""
        entry = Entry(
            action=action, version=version.number, replaced=replaced, after=after, why=why, run=version.run_id
        )
        if current == replaced and self._ledger.append(entry, self._source(version.run_id), version.run_id):
            return
        self.settle()
        champion = self.champion()
        now = _named(champion.number if champion else "")
        if action == "promote":
            raise RegistryError(
                f"version {version.number} was compared with {_named(replaced)}, but by now {now} is champion; run the "
                "pipeline again to compare with that one"
            )
        raise RegistryError(f"somebody was faster: by now {now} is champion; see 'kintsugi models', then try again")

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
        while self.versions() and (history := self._ledger.history()) and history[-1] != settled:
            settled = history[-1]
            changed |= self._project(settled, self._champion(history))
        if settled:
            self._ledger.note_seen()
        return changed

    def _project(self, latest: Entry, champion: Version | None) -> bool:
        """Write what an entry says to the model, and to the versions that are still there."""
        there, (aliases, tags) = {version.number for version in self.versions()}, read_model(self._client, self.name)
        missing = {}
        if champion:
            told = {"promoted_at": latest.at, "promoted_by": latest.by, "replaced": latest.replaced, "why": latest.why}
            missing = {name: value for name, value in told.items() if champion.tags.get(name) != value}
            self.tag(champion.number, missing)
        wanted = {CHAMPION: champion.number if champion else "", PREVIOUS: latest.replaced}
        targets = {alias: number if number in there else "" for alias, number in wanted.items()}
        moved = {alias: number for alias, number in targets.items() if aliases.get(alias, "") != number}
        for alias, number in moved.items():
            if number:
                insist(self._client.set_registered_model_alias, self.name, alias, number)
            else:
                insist(self._client.delete_registered_model_alias, self.name, alias)
        challenged = self._drop_challenger(champion)
        if tags.get(CHAMPION) != (said := latest.sentence):
            insist(self._client.set_registered_model_tag, self.name, CHAMPION, said)
        return bool(missing or moved or challenged)

    def _drop_challenger(self, champion: Version | None) -> bool:
        """Whether the champion was challenger still. What another process registers at that moment is challenger."""
        if champion is None or self.aliases().get(CHALLENGER) != champion.number:
            return False
        insist(self._client.delete_registered_model_alias, self.name, CHALLENGER)
        newer = [version for version in self.versions() if int(version.number) > int(champion.number)]
        waiting = [version for version in newer if version.decision.admitted and "promoted_at" not in version.tags]
        if waiting:
            insist(self._client.set_registered_model_alias, self.name, CHALLENGER, waiting[0].number)
        return True

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
            raise RegistryError(
                f"{named} has no digest of its {path}, as one that was registered by hand; go back to another "
                "version, or register models under another name (serve_model_name)"
            )
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


def _require_digest(path: Path, digest: str, named: str) -> None:
    if (found := file_digest(path) if path.is_file() else "none") != digest:
        raise RegistryError(
            f"{named} has the digest {found[:12]}, the registry says {digest[:12]}; it was changed since; run the "
            "pipeline again, or roll back"
        )


def _was_champion(version: Version, history: list[Entry]) -> bool:
    """Whether it says so itself, as also where its history was lost, or the history does, before it is told."""
    return "promoted_at" in version.tags or (version.number, version.run_id) in {(e.version, e.run) for e in history}


def _named(number: str) -> str:
    return f"version {number}" if number else "no model"
