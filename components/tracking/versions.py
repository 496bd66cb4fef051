"""One version of a registered model: what its tags say."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion

from components.inpainting.scores import Decision


class RegistryError(ValueError):
    """The registry does not hold what was asked for, or changed meanwhile."""


@dataclass(frozen=True)
class Version:
    """One registered model version."""

    name: str
    number: str
    run_id: str
    tags: dict[str, str]

    @classmethod
    def of(cls, version: ModelVersion) -> Version:
        """As MLflow has it."""
        return cls(version.name, str(version.version), version.run_id or "", dict(version.tags))

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
    def bento(self) -> str:
        """The tag of the Bento that was verified last, which is the one to serve; ``""`` for none.

        A version that is packaged anew is served as it was until the new Bento is verified.
        """
        return self.tags.get("verified", "")

    @property
    def bento_folder(self) -> str:
        """Where the version's run keeps that Bento and what belongs to it."""
        return bento_folder(self.bento)

    @property
    def problem(self) -> str:
        """What speaks against serving it, as in "was never packaged"; ``""`` for nothing."""
        packaged = self.tags.get("bento", "")
        problems = {
            "was not admitted by the gate": not self.decision.admitted,
            "was never packaged": not packaged,
            "did not repair alike when it was served": not self.bento and self.tags.get("failed") == packaged,
            "was not verified since it was packaged": not self.bento,
        }
        return next((sentence for sentence, holds in problems.items() if holds), "")


def bento_folder(tag: str) -> str:
    """Where a version's run keeps a Bento and what belongs to it, by the Bento's tag."""
    return f"bento/{tag.partition(':')[2]}"
