"""Run the compiled pipeline on this machine, with kfp.local's subprocess runner, in one state folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import yaml
from rich.console import Console

from components.config import PipelineConfig, Settings
from components.form import fill
from components.manifest import write_file
from components.progress import STOP_SIGNALS
from pipelines.compile import compile_pipeline
from pipelines.events import EventStream

MIN_FREE_BYTES = 1 << 30
_FINISHED = "finished"
_SECONDS_TO_STOP = 20


class RunError(ValueError):
    """A local run could not start, or a step of it failed."""


def run_pipeline(config: PipelineConfig, settings: Settings) -> Path:
    """Compile the pipeline and run it; returns the run's folder, which holds the steps' artifacts.

    Raises ``RunError`` with the failing step's own sentence. An interrupted run takes its folder with
    it; a failed one leaves its log.
    """
    state, console = settings.make_state(), Console(file=sys.stdout)  # kfp's own output goes elsewhere
    with _locked(state):
        _sweep(state / "runs")
        _check_space(state)
        folder = state / "runs" / datetime.now().strftime("%Y%m%d-%H%M%S")
        with _interruptible(), tempfile.TemporaryDirectory(prefix="kintsugi-", ignore_cleanup_errors=True) as scratch:
            try:
                console.print(f"State folder {state}, run {folder.name}", highlight=False, markup=False, soft_wrap=True)
                pipeline = compile_pipeline(folder / "kintsugi.yaml")
                _execute(pipeline, config, settings, console, scratch)
                _show(folder)
            except KeyboardInterrupt:
                _stop_children()
                shutil.rmtree(folder, ignore_errors=True)
                raise KeyboardInterrupt from None
        write_file(folder / _FINISHED, "")
        return folder


def _execute(pipeline: Path, config: PipelineConfig, settings: Settings, console: Console, scratch: str) -> None:
    from kfp import local
    from kfp.components import load_component_from_text

    environment = {
        "KINTSUGI_HOME": str(settings.state),
        "TMPDIR": scratch,  # kfp leaves a folder there for every step
        "KINTSUGI_EVENTS": "1",
        "PYTHONUNBUFFERED": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # OpenMP's threads wait by spinning; for long, that starves everything else on busy cores.
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "20000"),
    }
    os.environ.update(environment)
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(pipeline.parent / "steps"))
    log = pipeline.parent / "log.txt"
    with EventStream(console, log) as events, contextlib.redirect_stdout(events):
        try:
            with warnings.catch_warnings():  # pods' settings mean nothing here, and kfp says so for every step
                warnings.filterwarnings("ignore", module="kfp")
                load_component_from_text(_without_retries(pipeline.read_text()))(**fill(config))
        except RuntimeError:
            reason = events.error or f"{events.step or 'kfp'}: it failed without a reason we know"
            raise RunError(f"{reason}. The whole log is in {log}") from None


def _without_retries(compiled: str) -> str:
    """The compiled pipeline for one machine, where a step that failed would only fail again: nobody preempts it."""
    spec, platform = yaml.load_all(compiled, yaml.CSafeLoader)
    for component in [spec["root"], *spec["components"].values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
    return yaml.dump_all([spec, platform], Dumper=yaml.CSafeDumper)


def _show(folder: Path) -> None:
    """Put what people look at on top of the run's folder, under names that browsers know."""
    for artifact, name in (("gate/report", "report.html"), ("prepare/card", "dataset-card.html")):
        shutil.copy(task_artifact(folder, artifact), folder / name)


def task_artifact(folder: Path, name: str) -> Path:
    """The path of a task's artifact, ``"<task>/<artifact>"``, in a run's folder."""
    (found,) = folder.glob(f"steps/*/{name}")
    return found


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        with FileLock(state / "lock", timeout=0):
            yield
    except Timeout:
        raise RunError(
            f"another run is at work in {state}; wait for it, or set KINTSUGI_HOME to another folder"
        ) from None


def _check_space(state: Path) -> None:
    free = shutil.disk_usage(state).free
    if free < MIN_FREE_BYTES:
        raise RunError(
            f"{state} has {free >> 20} MB left, a run needs {MIN_FREE_BYTES >> 20} MB; free some, or set "
            "KINTSUGI_HOME to a folder on a larger disk"
        )


def _sweep(runs: Path) -> None:
    """Remove what a run that was killed left behind; a failed run keeps its log alone."""
    for folder in runs.glob("*"):
        if not (folder / _FINISHED).exists():
            shutil.rmtree(folder / "steps", ignore_errors=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A lost terminal and SIGTERM stop a run as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stop_children() -> None:
    """Ask the running step to stop and wait for it, so that it can take back what it was writing."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(children, timeout=_SECONDS_TO_STOP)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
