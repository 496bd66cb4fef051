"""MLflow's own validation of scores against thresholds."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import validate_evaluation_results
from mlflow.models import MetricThreshold
from mlflow.models.evaluation import EvaluationResult
from mlflow.models.evaluation.validation import ModelValidationFailedException


@dataclass(frozen=True)
class Threshold:
    """What a score must reach, or may not exceed."""

    limit: float
    at_least: bool


def missed_thresholds(scores: Mapping[str, float], thresholds: Mapping[str, Threshold]) -> set[str]:
    """The names of the scores that miss their thresholds.

    ``mlflow.validate_evaluation_results`` decides, except on what is no finite number, which MLflow lets pass and
    which misses here.
    """
    logging.getLogger("mlflow.models.evaluation.validation").setLevel(logging.WARNING)  # it announces every call
    return {name for name, threshold in thresholds.items() if not _holds(name, scores.get(name, math.nan), threshold)}


def _holds(name: str, score: float, threshold: Threshold) -> bool:
    if not math.isfinite(score):
        return False
    wanted = MetricThreshold(threshold=float(threshold.limit), greater_is_better=threshold.at_least)  # type: ignore[no-untyped-call]
    found = EvaluationResult(metrics={name: score}, artifacts={})  # type: ignore[no-untyped-call]
    try:
        validate_evaluation_results({name: wanted}, found)
    except ModelValidationFailedException:
        return False
    return True
