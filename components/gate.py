"""The gate step: whether a model may replace the champion, with one sentence per rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from components.config import GateConfig, Settings
from components.inpainting.scores import BIHARMONIC, CANDIDATE, CHAMPION, Decision, Evaluation, Rule
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
    run.log_file(report, "")
    run.log_file(decision / "decision.json", "evaluation")
    say(result.verdict)
    return result.admitted


def decide(evaluation: Evaluation, policy: GateConfig) -> Decision:
    """Hold scores against a policy. Pure; a score that is missing or no number fails its rule."""
    rules = [*_rules(evaluation, policy)]
    return Decision(admitted=all(r.passed for r in rules), rules=rules, champion=evaluation.champion)


def _rules(evaluation: Evaluation, policy: GateConfig) -> Iterator[Rule]:
    model = evaluation.methods[CANDIDATE].overall
    steps = evaluation.steps
    yield Rule(
        name="trained",
        passed=steps > 0,
        sentence=f"The model was trained for {steps} steps." if steps else "The model was never trained (0 steps).",
    )
    yield _threshold("SSIM", model.ssim, policy.min_ssim, at_least=True)
    yield _threshold("hole MSE", model.hole_mse, policy.max_mse, at_least=False)
    classical = evaluation.methods.get(BIHARMONIC)
    if classical is None:
        yield Rule(name="classical", passed=False, sentence="The classical method was not scored.")
    else:
        holds = model.ssim >= classical.overall.ssim and model.hole_mse <= classical.overall.hole_mse
        yield _comparison("classical", holds, "no worse than", "worse than", "the biharmonic fill",
                          evaluation, BIHARMONIC)  # fmt: skip
    champion = evaluation.methods.get(CHAMPION)
    if champion is None:
        yield Rule(name="champion", passed=not evaluation.champion, sentence="There is no champion to beat yet."
                   if not evaluation.champion else f"Champion version {evaluation.champion} was not scored.")  # fmt: skip
    else:
        holds = model.ssim > champion.overall.ssim and model.hole_mse <= champion.overall.hole_mse
        yield _comparison("champion", holds, "better than", "not better than",
                          f"the champion, version {evaluation.champion}", evaluation, CHAMPION)  # fmt: skip


def _threshold(name: str, value: float, limit: float, *, at_least: bool) -> Rule:
    rule = name.lower().replace(" ", "_")
    if not math.isfinite(value):
        return Rule(name=rule, passed=False, sentence=f"{name} is no finite number.")
    passed = value >= limit if at_least else value <= limit
    word = "at least" if at_least else "at most"
    tail = "as asked" if passed else "missed"
    return Rule(name=rule, passed=passed, sentence=f"{name} is {value:.4f}; {word} {limit:g} is {tail}.")


def _comparison(
    name: str, passed: bool, better: str, worse: str, whom: str, evaluation: Evaluation, method: str
) -> Rule:
    model, other = evaluation.methods[CANDIDATE].overall, evaluation.methods[method].overall
    return Rule(
        name=name,
        passed=passed,
        sentence=f"It repairs {better if passed else worse} {whom}: SSIM {model.ssim:.5f} against {other.ssim:.5f}, "
        f"hole MSE {model.hole_mse:.6f} against {other.hole_mse:.6f}.",
    )
