"""What a finished local run has to say: scores, the verdict, the version, where things are, what next."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.config import ServeConfig
from components.inpainting.scores import BIHARMONIC, LABELS, Decision, Evaluation
from components.manifest import read_json
from pipelines.local import task_artifact


@dataclass(frozen=True)
class RunResult:
    """The artifacts of a finished run, found in its folder."""

    evaluation: Evaluation
    decision: Decision
    version: str  # registered version number, "" when the gate refused the model
    verified: bool
    promoted: bool
    report: Path
    samples: Path
    repairs: Path
    card: Path
    dataset: Path
    source: str

    @property
    def refused(self) -> bool:
        """Whether the model is not fit: a rule of the gate does not hold, or it answered differently when served."""
        if self.decision.mode == "dry_run":
            return bool(self.decision.missed)
        return not (self.decision.admitted and self.verified)

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
            verified=_output(folder, "verify") == "True",
            promoted=bool(_output(folder, "promote")),
            report=folder / "report.html",
            samples=task_artifact(folder, "train/model") / "samples",
            repairs=evaluation / "repairs.png",
            card=folder / "dataset-card.html",
            dataset=task_artifact(folder, "prepare/dataset"),
            source=read_json(task_artifact(folder, "prepare/dataset") / "manifest.json")["facts"]["source"],
        )


def print_summary(result: RunResult, model_name: str, console: Console) -> None:
    """Print the end of a run for a person to read."""
    console.print(_scores(result.evaluation, "ssim", "SSIM (more is better)", ".4f"))
    console.print(_scores(result.evaluation, "hole_mse", "MSE inside the hole (less is better)", ".5f"))
    for rule in result.decision.rules:
        mark = "[green]✓[/]" if rule.passed else "[red]✗[/]"
        console.print(f"{mark} {escape(rule.sentence)}", highlight=False, soft_wrap=True)
    console.print(f"\n[bold]{_outcome(result, _named(model_name))}[/]", highlight=False)
    for name in ("report", "repairs", "samples", "card", "dataset"):
        path = getattr(result, name)
        console.print(f"{name.capitalize():9} {escape(_short(path))}", highlight=False, soft_wrap=True)
    console.print("\nNext:")
    for command, purpose in _next_steps(result, model_name):
        console.print(f"  {command}   {purpose}", soft_wrap=True)


def _next_steps(result: RunResult, model_name: str) -> Iterator[tuple[str, str]]:
    named = _named(model_name)
    if result.decision.champion or result.promoted:
        yield (
            f"make serve{named and f' ARGS={named.strip()!r}'}",
            "answers POST /inpaint on port 3000 with the champion",
        )
        command = _short(Path(sys.executable).with_name("kintsugi"))
        yield f"{command} inpaint photo.png --mask mask.png -o out.png{named}", "repairs one picture, no server needed"
    page = result.evaluation.run_page
    yield page or "make ui", "is this run in MLflow" if page else "shows which of all runs repairs better, in MLflow"
    data = "" if result.source == "sample" else f" DATA={result.source!r}"
    yield f"make run{data} ARGS='--set train_steps=2400'", "trains a challenger for longer"


def _named(model_name: str) -> str:
    """The option that names a registered model, where it is not the default one."""
    return "" if model_name == ServeConfig().model_name else f" --model-name {model_name}"


def _outcome(result: RunResult, named: str) -> str:
    if result.promoted:
        return f"Promoted: version {result.version} is champion now."
    kept = f"version {result.decision.champion} stays champion" if result.decision.champion else "there is no champion"
    if result.decision.mode == "dry_run":
        return f"Dry run: the model is not registered; {kept}."
    if result.decision.admitted and result.decision.mode == "manual" and result.verified:
        return f"Admitted: version {result.version} is challenger, 'kintsugi promote{named}' makes it champion; {kept}."
    if result.decision.admitted:
        return f"Not promoted: version {result.version} answered differently when served; {kept}."
    return f"Refused: the model is not registered; {kept}."


def _short(path: Path) -> str:
    """The path from here, where it lies below the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _scores(evaluation: Evaluation, metric: str, title: str, layout: str) -> Table:
    methods = evaluation.in_tables
    table = Table(title=title, title_justify="left")
    table.add_column("mask family")
    for name in methods:
        table.add_column(LABELS[name] + (" (classical)" if name == BIHARMONIC else ""), justify="right")
    for family in [*evaluation.families, "overall"]:
        cells = (format(getattr(evaluation.score(name, family), metric), layout) for name in methods)
        table.add_row(family, *cells, style="bold" if family == "overall" else None)
    return table


def _output(folder: Path, task: str) -> str:
    """A task's single return value; "" when the task did not run."""
    found = list(folder.glob(f"steps/*/{task}/executor_output.json"))
    return str(read_json(found[0])["parameterValues"]["Output"]) if found else ""
