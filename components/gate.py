"""The gate step: whether a model may replace the champion, with one sentence per rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from components.config import GateConfig, Settings
from components.inpainting.scores import BIHARMONIC, CANDIDATE, CHAMPION, Decision, Evaluation, Rule, Score
from components.manifest import complete_folder, read_manifest, write_file
from components.progress import say, step
from components.report import evaluation_report
from components.tracking import open_run

KIND = "decision"


@step("gate")
def gate(config: GateConfig, evaluation: Path, decision: Path, report: Path, settings: Settings) -> bool:
    """Decide on an evaluation folder; write a decision folder and the report with the verdict on top."""
    manifest = read_manifest(evaluation, "evaluation")
    scores = Evaluation.model_validate_json((evaluation / "scores.json").read_bytes())
    result = decide(scores, config)
    with complete_folder(decision, KIND) as draft:
        draft.made_from = {"evaluation": manifest.digest}
        (draft.path / "decision.json").write_text(result.model_dump_json(indent=2))
    write_file(report, evaluation_report(evaluation, scores, result))
    run = open_run(settings, scores.run_id)
    run.set_tags({"verdict": result.verdict, "admitted": str(result.admitted).lower()})
    run.log_page(report, "report.html")
    run.log_file(decision / "decision.json", "evaluation")
    say(result.verdict)
    return result.admitted


def decide(evaluation: Evaluation, policy: GateConfig) -> Decision:
    """Hold scores against a policy. Pure; a score that is missing or no number fails its rule."""
    rules = [*_rules(evaluation, policy)]
    return Decision(
        admitted=all(rule.passed for rule in rules),
        rules=rules,
        policy=policy.model_dump(),
        champion=evaluation.champion,
    )


def _rules(evaluation: Evaluation, policy: GateConfig) -> Iterator[Rule]:
    model = evaluation.methods[CANDIDATE].overall
    yield _trained(evaluation.steps)
    yield _threshold("SSIM", model.ssim, policy.min_ssim, at_least=True)
    yield _threshold("hole MSE", model.hole_mse, policy.max_mse, at_least=False)
    yield _beats_classical(evaluation)
    yield _beats_champion(evaluation)


def _trained(steps: int) -> Rule:
    said = f"was trained for {steps} steps" if steps else "was never trained (0 steps)"
    return Rule(name="trained", passed=steps > 0, sentence=f"The model {said}.")


def _beats_classical(evaluation: Evaluation) -> Rule:
    if BIHARMONIC not in evaluation.methods:
        return Rule(name="classical", passed=False, sentence="The classical method was not scored.")
    model, other = evaluation.methods[CANDIDATE].overall, evaluation.methods[BIHARMONIC].overall
    passed = model.ssim >= other.ssim and model.hole_mse <= other.hole_mse
    said = f"repairs {'no worse' if passed else 'worse'} than the biharmonic fill"
    return Rule(name="classical", passed=passed, sentence=_compared(said, model, other))


def _beats_champion(evaluation: Evaluation) -> Rule:
    if not evaluation.champion:
        return Rule(name="champion", passed=True, sentence="There is no champion to beat yet.")
    whom = f"the champion, version {evaluation.champion}"
    if CHAMPION not in evaluation.methods:
        return Rule(name="champion", passed=False, sentence=f"{whom.capitalize()}, was not scored.")
    model, other = evaluation.methods[CANDIDATE].overall, evaluation.methods[CHAMPION].overall
    passed = model.ssim > other.ssim and model.hole_mse <= other.hole_mse
    said = f"{'repairs' if passed else 'does not repair'} better than {whom}"
    return Rule(name="champion", passed=passed, sentence=_compared(said, model, other))


def _compared(said: str, model: Score, other: Score) -> str:
    return (
        f"It {said}: SSIM {model.ssim:.5f} against {other.ssim:.5f}, "
        f"hole MSE {model.hole_mse:.6f} against {other.hole_mse:.6f}."
    )


def _threshold(name: str, value: float, limit: float, *, at_least: bool) -> Rule:
    rule = name.lower().replace(" ", "_")
    if not math.isfinite(value):
        return Rule(name=rule, passed=False, sentence=f"{name} is no finite number.")
    passed = value >= limit if at_least else value <= limit
    word = "at least" if at_least else "at most"
    tail = "as asked" if passed else "missed"
    return Rule(name=rule, passed=passed, sentence=f"{name} is {value:.4f}; {word} {limit:g} is {tail}.")
