"""The register step: an admitted model becomes a version of the registered model, as ``challenger``."""

from __future__ import annotations

import json
from pathlib import Path

from components.config import ServeConfig, Settings
from components.description import describe
from components.inpainting.export import ENGINE
from components.inpainting.networks import CONFIG, WEIGHTS
from components.inpainting.scores import CANDIDATE, LABELS, Decision, Evaluation
from components.manifest import Manifest, file_digest, read_manifest, write_file
from components.progress import say, step
from components.report import render
from components.tracking import GENERATOR_FOLDER, Registry, RegistryError

_MADE_OF = ("digest", "weights", "dataset", "code", "policy")
"""Tags that say what a version was made of."""


@step("register")
def register(
    config: ServeConfig,
    model: Path,
    evaluation: Path,
    decision: Path,
    pipeline_run: str,
    report: Path,
    settings: Settings,
) -> str:
    """Register the model that an evaluation scored and a decision admitted; returns the version number.

    The version says where it comes from and why it was admitted, in tags for programs and in a description for
    people: ``pipeline_run`` is the id of the pipeline's run. A retried step makes no second version. ``report`` becomes
    a page (HTML) that says the same. Raises ``RegistryError`` when the decision refused the model, or when the folders
    are not of one model.
    """
    manifest = read_manifest(model, "model")
    scores = Evaluation.model_validate_json((evaluation / "scores.json").read_bytes())
    verdict = Decision.model_validate_json((decision / "decision.json").read_bytes())
    if not verdict.admitted:
        raise RegistryError(f"the gate refused this model, so it is not registered. {verdict.verdict}")
    if scores.model_digest != manifest.digest:
        raise RegistryError("the evaluation is of another model than the one to register; run evaluate again")
    if read_manifest(decision, "decision").made_from["evaluation"] != read_manifest(evaluation, "evaluation").digest:
        raise RegistryError("the decision is on another evaluation than that of the model to register; run gate again")
    pages = {"pipeline_run_page": settings.kubeflow_page(pipeline_run), "mlflow_run_page": scores.run_page}
    tags = _tags(manifest, scores, verdict) | {"pipeline_run": pipeline_run, "weights": file_digest(model / WEIGHTS)}
    registry = Registry(settings, config.model_name)
    before = {known.number for known in registry.versions()}
    version = registry.register(
        scores.run_id,
        tags | {name: page for name, page in pages.items() if page},
        _description(scores, verdict, pipeline_run, pages["pipeline_run_page"]),
        scores.logged_model,
    )
    generator = {f"{GENERATOR_FOLDER}/{name}": model / name for name in (CONFIG, WEIGHTS)}
    registry.record(version.number, generator | {f"evaluation/{ENGINE}": evaluation / ENGINE})
    aliases = sorted(alias for alias, number in registry.aliases().items() if number == version.number)
    page = render(
        "registration.html",
        title=f"{version.name} version {version.number}",
        version=version,
        page=registry.page(version.number),
        again=version.number in before,
        aliases=aliases,
        scores=scores,
        decision=verdict,
        labels=LABELS,
        made={name: tags[name] for name in _MADE_OF},
        pipeline_run=pipeline_run,
        pages=pages,
    )
    write_file(report, page)
    say(f"registered {version.name} version {version.number}")
    return version.number


def _tags(manifest: Manifest, scores: Evaluation, verdict: Decision) -> dict[str, str]:
    return {
        "digest": manifest.digest,
        "dataset": scores.dataset_digest,
        "code": manifest.code_version,
        "policy": verdict.policy_digest,
        "steps": str(scores.steps),
        "architecture": scores.model,
        "scores": json.dumps(scores.methods[CANDIDATE].overall.known),
        "decision": verdict.model_dump_json(),
    }


def _description(scores: Evaluation, verdict: Decision, pipeline_run: str, pipeline_page: str) -> str:
    """What MLflow's page of the version says on top, in Markdown."""
    where = f"[pipeline run {pipeline_run}]({pipeline_page})" if pipeline_page else f"pipeline run {pipeline_run}"
    run = f"[MLflow run]({scores.run_page})" if scores.run_page else f"MLflow run {scores.run_id}"
    page = scores.page_of("report.html")
    report = f"[report]({page})" if page else "report.html of the MLflow run"
    return describe(scores, verdict, f"From {where}, {run}; {report}.")
