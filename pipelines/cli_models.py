"""The verbs of ``kintsugi`` about models that are registered: list, promote, serve, repair with them."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from components.config import ConfigError, PipelineConfig, RunConfig, ServeConfig, Settings

if TYPE_CHECKING:
    from components.client import InpaintClient
    from components.tracking import HistoryError, Registry

verbs = typer.Typer()
console = Console(markup=False, soft_wrap=True)
_TABLE_WIDTH = 110  # at least: numbers that are cut short compare with nothing


def _model_name(name: str) -> str:
    return PipelineConfig.from_flat({"serve_model_name": name}).serve.model_name


ModelName = Annotated[str, typer.Option(help="registered model", callback=_model_name)]
BlindModel = Annotated[
    str, typer.Option(help="registered model for pictures without a mask; auto: MODEL_NAME-blind; none")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
Why = Annotated[str, typer.Option("--why", help="the reason, for the history")]
Interval = Annotated[float, typer.Option(min=0.2, help="seconds between two looks at the registry")]


def _served(model_name: str, blind_model: str) -> ServeConfig:
    flat = {"serve_model_name": model_name, "serve_blind_model": blind_model}
    return PipelineConfig.from_flat(flat).serve


def _log(line: str) -> None:
    console.print(f"{datetime.now():%H:%M:%S} follow: {line}")
    sys.stdout.flush()


@verbs.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    model_name: ModelName = "kintsugi",
    blind_model: BlindModel = "auto",
    interval: Interval = 5.0,
) -> None:
    """Serve the champion over HTTP with BentoML; whoever becomes champion later takes over at once."""
    from components.bentos import bento_environment
    from pipelines.champion import fetch_champion
    from pipelines.follow import start_follower

    _require_free(host, port)
    settings, config = Settings(), _served(model_name, blind_model)
    champion = fetch_champion(settings, model_name)
    models = start_follower(settings, config, interval)
    console.print(f"serving {champion.tag}, version {champion.version}, on http://{host}:{port}")
    sys.stdout.flush()
    command = [sys.executable, "-m", "bentoml", "serve", champion.tag, "--host", host, "--port", str(port)]
    os.execve(sys.executable, command, bento_environment(settings.bento_home) | {"KINTSUGI_MODELS": str(models)})


@verbs.command()
def follow(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="folder of models; default: in the state")
    ] = None,
    model_name: ModelName = "kintsugi",
    blind_model: BlindModel = "auto",
    interval: Interval = 5.0,
    once: Annotated[bool, typer.Option(help="look once; exit with 1 where that was not possible")] = False,
    parent: Annotated[int, typer.Option(hidden=True, help="process to end with")] = 0,
) -> None:
    """Keep a folder of models in step with the champions in MLflow, for a server that watches it (KINTSUGI_MODELS)."""
    from pipelines.follow import Follower, follow_until_stopped, models_folder

    settings, config = Settings(), _served(model_name, blind_model)
    follower = Follower(settings, config, output or models_folder(settings, config), _log)
    if once:
        raise typer.Exit(0 if follower.look() else 1)
    follow_until_stopped(follower, interval, parent)


@verbs.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
) -> None:
    """Open MLflow on the state folder: runs, curves, pictures, models."""
    from components.tracking import runs_page

    _require_free(host, port)
    settings = Settings()
    experiment = RunConfig().experiment
    if settings.tracking_uri.startswith("http"):
        raise ConfigError(f"MLFLOW_TRACKING_URI names a server already; open {runs_page(settings, experiment)}")
    settings.make_state()
    runs = runs_page(settings, experiment, f"http://{host}:{port}/#")
    console.print(f"MLflow comes up on {runs}")
    sys.stdout.flush()
    artifacts = (settings.state / "mlartifacts").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1",
               "--backend-store-uri", settings.mlflow_uri, "--default-artifact-root", artifacts]  # fmt: skip
    os.execve(sys.executable, command, os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"})


@verbs.command()
def inpaint(
    pictures: Annotated[list[Path], typer.Argument(help="damaged pictures, and folders of such")],
    output: Annotated[Path, typer.Option("-o", "--output", help="file of the repair, or folder of several")],
    mask: Annotated[
        Path | None, typer.Option(help="white where a picture is damaged; of several: a folder with the same names")
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="look for damage where there is no mask, and no transparent part")
    ] = False,
    format_: Annotated[
        Literal["png", "webp", "jpeg", "same"] | None, typer.Option("--format", help="default: by -o, else png")
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="of a JPEG")] = 90,
    grow_mask: Annotated[int, typer.Option(min=0, max=64, help="pixels by which holes are made larger")] = 0,
    feather: Annotated[int, typer.Option(min=0, max=32, help="pixels over which a repair fades into them")] = 0,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="pictures at a time")] = 2,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="leave out what was repaired")] = False,
    url: Annotated[str | None, typer.Option(help="endpoint to ask; default: the champion, here")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="KINTSUGI_API_KEY", help="of the endpoint")] = None,
    model_name: ModelName = "kintsugi",
) -> None:
    """Repair pictures with the champion on this machine, or by an endpoint; no picture is written over."""
    from pipelines.inpaint import Wishes, check_first, plan_jobs, repair_all

    if mask and blind:
        raise ConfigError("--blind looks for damage by itself; give either that or --mask")
    planned = plan_jobs(pictures, mask, output, format_ or "")
    todo = [job for job in planned if not (skip_existing and job.output.exists())]
    if len(planned) == 1:
        check_first(planned[0])
    failed, version = [], "none"
    if todo:
        with _endpoint(url, api_key, model_name) as (client, version):
            failed = repair_all(client, todo, Wishes(quality, grow_mask, feather, blind), jobs, console)
    skipped = f", {len(planned) - len(todo)} skipped" if len(planned) > len(todo) else ""
    console.print(f"{len(todo) - len(failed)} repaired by version {version}, {len(failed)} failed{skipped}: {output}")
    if failed:
        raise typer.Exit(1)


@contextmanager
def _endpoint(url: str | None, api_key: str | None, model_name: str) -> Iterator[tuple[InpaintClient, str]]:
    """A client of the endpoint at an address, else of the champion on this machine, and the version that is served."""
    if url is None:
        from pipelines.champion import champion_client

        with champion_client(Settings(), model_name) as served:
            yield served
        return
    from components.client import InpaintClient

    with InpaintClient(url, api_key) as client:
        yield client, str(client.model().get("version", "?"))


@verbs.command()
def models(model_name: ModelName = "kintsugi") -> None:
    """List the registered versions with their scores and aliases, and who was champion when."""
    from components.tracking import Registry
    from pipelines.listing import champion_trouble, history_table, version_table

    registry = Registry(Settings(), model_name)
    if not registry.versions():
        raise ConfigError(
            f"no version of {model_name!r} is registered in {Settings().mlflow_uri}; run 'make run' first"
        )
    wide = Console(markup=False, width=max(console.width, _TABLE_WIDTH))
    wide.print(version_table(registry))
    if history := registry.history():
        wide.print(history_table(history))
    if trouble := champion_trouble(registry):
        console.print(trouble)


@verbs.command()
def promote(
    version: Annotated[str, typer.Argument(help="default: the challenger")] = "",
    yes: Yes = False,
    why: Why = "",
    model_name: ModelName = "kintsugi",
) -> None:
    """Make an admitted version champion, which gate_mode=manual leaves to you."""
    from components.tracking import Registry

    registry = Registry(Settings(), model_name)
    _complete(registry)
    chosen, current = registry.challenger(version), registry.champion()
    if current and current.number == chosen.number:
        raise ConfigError(f"version {chosen.number} is champion already")
    if not yes:
        instead = f" in place of version {current.number}" if current else ""
        typer.confirm(f"Make version {chosen.number} of {model_name} champion{instead}?", abort=True)
    registry.promote(chosen.number, why or f"by hand: {chosen.decision.verdict}")
    console.print(f"version {chosen.number} is champion; a running 'kintsugi serve' takes it")


@verbs.command()
def rollback(
    version: Annotated[str, typer.Argument(help="default: the previous champion")] = "",
    yes: Yes = False,
    why: Why = "",
    model_name: ModelName = "kintsugi",
) -> None:
    """Make an earlier champion champion again; doing it twice undoes it."""
    from components.tracking import HistoryError, Registry

    registry = Registry(Settings(), model_name)
    try:
        _complete(registry)
    except HistoryError as damaged:
        _restore(registry, version, yes, why, damaged)
        return
    history, champion = registry.history(), registry.champion()
    wanted, current = version or (history[-1].replaced if history else ""), champion.number if champion else ""
    if not wanted:
        raise ConfigError(f"there is no previous champion of {model_name!r} to go back to; see 'kintsugi models'")
    registry.get(wanted)
    if wanted == current:
        raise ConfigError(f"version {wanted} is champion already")
    if not yes:
        typer.confirm(f"Make version {wanted} champion in place of version {current or '(none)'}?", abort=True)
    registry.rollback(wanted, current, why)
    console.print(f"version {wanted} is champion; a running 'kintsugi serve' takes it")


def _restore(registry: Registry, version: str, yes: bool, why: str, damaged: HistoryError) -> None:
    """Go on where the history of the champions was damaged: a person says who is champion."""
    if not version:
        raise damaged
    registry.get(version)
    if not yes:
        typer.confirm(f"{damaged}. Make version {version} champion, and begin a new history?", abort=True)
    registry.restore(version, why)
    console.print(f"version {version} is champion; a running 'kintsugi serve' takes it")


def _complete(registry: Registry) -> None:
    """Complete a change of the champion that was interrupted, and stop there: who repeats it may not want another."""
    if registry.settle():
        champion = registry.history()[-1].version
        raise ConfigError(
            f"MLflow's aliases did not say what the history of {registry.name!r} does, as after a change that was "
            f"interrupted; now they do: version {champion} is champion. See 'kintsugi models', then try again"
        )


def _require_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            other = "--port" if error.errno == errno.EADDRINUSE else "--host or --port"
            raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror}); choose another {other}") from None
