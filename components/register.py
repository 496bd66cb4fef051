"""The register step: an admitted model becomes a version of the registered model, as ``challenger``."""

from __future__ import annotations

import json
from pathlib import Path

from components.config import ServeConfig, Settings
from components.inpainting.scores import CANDIDATE, Decision, Evaluation
from components.manifest import read_manifest
from components.progress import say, step
from components.tracking import Registry, RegistryError


@step("register")
def register(config: ServeConfig, model: Path, evaluation: Path, decision: Path, settings: Settings) -> str:
    """Register the model that an evaluation scored and a decision admitted; returns the version number.

    Raises ``RegistryError`` when the decision refused it, or when the folders are not of one model.
    """
    manifest = read_manifest(model, "model")
    scores = Evaluation.model_validate_json((evaluation / "scores.json").read_bytes())
    verdict = Decision.model_validate_json((decision / "decision.json").read_bytes())
    if not verdict.admitted:
        raise RegistryError(f"the gate refused this model, so it is not registered. {verdict.verdict}")
    if scores.model_digest != manifest.digest:
        raise RegistryError("the evaluation is of another model than the one to register; run evaluate again")
    overall = scores.methods[CANDIDATE].overall
    version = Registry(settings, config.model_name).register(
        scores.run_id,
        {
            "digest": manifest.digest,
            "dataset": scores.dataset_digest,
            "code": manifest.code_version,
            "steps": str(scores.steps),
            "architecture": scores.model,
            "scores": json.dumps(overall.known),
            "decision": verdict.model_dump_json(),
        },
    )
    say(f"registered {version.name} version {version.number}")
    return version.number
