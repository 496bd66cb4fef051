"""What a finished local run has to say: scores, the verdict, the version, where things are, what next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from components.inpainting.scores import BIHARMONIC, LABELS, Decision, Evaluation
from components.manifest import read_json
from pipelines.local import task_artifact


@dataclass(frozen=True)
class RunResult:
    """The artifacts of a finished run, found in its folder."""

    evaluation: Evaluation
    decision: Decision
    version: str  # registered version number, "" when the gate refused the model
    promoted: bool
    report: Path
    samples: Path
    repairs: Path

    @classmethod
    def read(cls, folder: Path) -> RunResult:
        """Read the result of a run from the folder that ``run_pipeline`` returned."""
        evaluation = task_artifact(folder, "evaluate/evaluation")
        return cls(
            evaluation=Evaluation.model_validate_json((evaluation / "scores.json").read_bytes()),
            decision=Decision.model_validate_json(
                (task_artifact(folder, "gate/decision") / "decision.json").read_bytes()
            ),
            version=_output(folder, "register"),
            promoted=bool(_output(folder, "promote")),
            report=folder / "report.html",
            samples=task_artifact(folder, "train/model") / "samples",
            repairs=evaluation / "repairs.png",
        )


def print_summary(result: RunResult, console: Console) -> None:
    """Print the end of a run for a person to read."""
    console.print(_scores(result.evaluation, "ssim", "SSIM (more is better)", ".4f"))
    console.print(_scores(result.evaluation, "hole_mse", "MSE inside the hole (less is better)", ".5f"))
    for rule in result.decision.rules:
        mark = "[green]✓[/]" if rule.passed else "[red]✗[/]"
        console.print(f"{mark} {rule.sentence}", highlight=False, soft_wrap=True)
    console.print(f"\n[bold]{_outcome(result)}[/]", highlight=False)
    for name, path in (("Report", result.report), ("Repairs", result.repairs), ("Samples", result.samples)):
        console.print(f"{name:9} {_short(path)}", highlight=False, soft_wrap=True)
    console.print("\nNext:")
    if result.decision.champion or result.promoted:
        console.print("  make serve   answers POST /inpaint on port 3000 with the champion\n"
                      "  kintsugi inpaint photo.png --mask mask.png -o out.png   repairs one picture, no server needed",
                      highlight=False, soft_wrap=True)  # fmt: skip
    console.print("  make ui      shows this run and all others in MLflow\n"
                  "  make run     trains a challenger; try ARGS='--set train_steps=2400'", highlight=False)  # fmt: skip


def _outcome(result: RunResult) -> str:
    if result.promoted:
        return f"Promoted: version {result.version} is champion now."
    kept = f"version {result.decision.champion} stays champion" if result.decision.champion else "there is no champion"
    if result.decision.admitted:
        return f"Not promoted: version {result.version} answered differently when served; {kept}."
    return f"Refused: the model is not registered; {kept}."


def _short(path: Path) -> str:
    """The path from here, where it lies below the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _scores(evaluation: Evaluation, metric: str, title: str, layout: str) -> Table:
    methods = [name for name in reversed(LABELS) if name in evaluation.methods]
    table = Table(title=title, title_justify="left")
    table.add_column("mask family")
    for name in methods:
        table.add_column(LABELS[name] + (" (classical)" if name == BIHARMONIC else ""), justify="right")
    for family in [*evaluation.families, "overall"]:
        table.add_row(family, *(_cell(evaluation, name, family, metric, layout) for name in methods),
                      style="bold" if family == "overall" else None)  # fmt: skip
    return table


def _cell(evaluation: Evaluation, method: str, family: str, metric: str, layout: str) -> str:
    scores = evaluation.methods[method]
    value = getattr(scores.overall if family == "overall" else scores.families[family], metric)
    return format(value, layout)


def _output(folder: Path, task: str) -> str:
    """A task's single return value; "" when the task did not run."""
    found = list(folder.glob(f"steps/*/{task}/executor_output.json"))
    return str(read_json(found[0])["parameterValues"]["Output"]) if found else ""
