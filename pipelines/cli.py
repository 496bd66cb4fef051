"""``kintsugi``: the command behind the Makefile's verbs. Heavy libraries load inside the verbs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from components.config import (
    ConfigError,
    PipelineConfig,
    Settings,
    locate,
)
from components.form import load_preset, parse_assignments, presets
from components.manifest import code_version
from pipelines.cli_models import console, verbs

_REFUSED = 3
_CLICK_INTERRUPTED = 130
_INTERRUPTED = (
    "interrupted; nothing half-written was kept; run again: pictures that were read are not read again, and a training "
    "goes on from its checkpoint"
)

cli = typer.Typer(
    help="Kintsugi mends pictures: train an inpainter, admit it when it repairs better, serve it.",
    no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False,
)  # fmt: skip

Preset = Annotated[str, typer.Option(help=f"one or several of {', '.join(presets())}")]
Set = Annotated[list[str], typer.Option("--set", metavar="NAME=VALUE", help="set a parameter, repeatable")]
Data = Annotated[str | None, typer.Option(help="short for --set data_source=...")]


@cli.command()
def run(
    preset: Preset = "sample",
    data: Data = None,
    set_: Set = [],  # noqa: B006 (typer copies it)
    fail_if_refused: Annotated[bool, typer.Option(help="exit with 3 when the model is refused")] = False,
) -> None:
    """Run the whole compiled pipeline on this machine."""
    from pipelines.local import run_pipeline
    from pipelines.summary import RunResult, print_summary

    config = _here(_config(preset, data, set_))
    result = RunResult.read(run_pipeline(config, Settings()))
    print_summary(result, config.serve.model_name, Console(highlight=False))
    if fail_if_refused and result.refused:
        raise typer.Exit(_REFUSED)


@cli.command("prepare")
def prepare_(
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for the dataset and its card")],
    preset: Preset = "sample",
    data: Data = None,
    set_: Set = [],  # noqa: B006
) -> None:
    """Make a dataset alone: clean, split and cut a collection of pictures, under fixed holes."""
    from components.prepare import prepare_here

    config = _here(_config(preset, data, set_)).data.model_copy(update={"code_version": code_version()})
    dataset = prepare_here(config, output.absolute(), Settings())
    console.print(f"dataset {dataset}\ncard    {dataset.with_name('card.html')}")


Image = Annotated[str, typer.Option(help="container image of the steps, name@sha256:...")]
GpuImage = Annotated[str, typer.Option(help="container image of the train step")]
AllowTags = Annotated[bool, typer.Option("--allow-tags", help="take images that are named by a tag, not a digest")]


@cli.command("compile")
def compile_(
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("build/kintsugi.yaml"),
    image: Image = "",
    gpu_image: GpuImage = "",
    allow_tags: AllowTags = False,
) -> None:
    """Write the pipeline's YAML for the Kubeflow UI: with dropdowns for 2.17 and later, and -compat without."""
    from pipelines.compile import Images, compile_pipeline

    written = compile_pipeline(output, Images(image, gpu_image))
    _require_clean(written, allow_tags=allow_tags or not (image or gpu_image))
    console.print(f"wrote {written} and {written.with_name(f'{written.stem}-compat.yaml')}")
    if not image:
        console.print("the images go by this release's tag; give --image and --gpu-image with a digest for a cluster")


IAP = "KF_PIPELINES"  # kfp's own names of the variables
IAP_HELP = "OAuth client of Google's Identity-Aware Proxy, to log in to it"
APP_HELP = "OAuth client for desktop programs, to log in to it in a browser; else as this machine's service account"


@cli.command()
def submit(
    host: Annotated[str, typer.Option(envvar="KINTSUGI_HOST", help="address of Kubeflow Pipelines")],
    schedule: Annotated[str, typer.Option(help="run again and again: '0 3 * * *' is every night at three, UTC")] = "",
    follow: Annotated[bool, typer.Option(help="wait for the end, and say what became of the model")] = True,
    namespace: Annotated[str, typer.Option(envvar="KINTSUGI_NAMESPACE", help="yours, where users have their own")] = "",
    token: Annotated[str, typer.Option(envvar="KINTSUGI_TOKEN", help="bearer token")] = "",
    token_file: Annotated[Path | None, typer.Option(help="file with a token, as a cluster mounts it in pods")] = None,
    cookies: Annotated[str, typer.Option(envvar="KINTSUGI_COOKIES", help="cookies of a login in the browser")] = "",
    client_id: Annotated[str, typer.Option(envvar=f"{IAP}_IAP_OAUTH2_CLIENT_ID", help=IAP_HELP)] = "",
    other_client_id: Annotated[str, typer.Option(envvar=f"{IAP}_APP_OAUTH2_CLIENT_ID", help=APP_HELP)] = "",
    other_client_secret: Annotated[str, typer.Option(envvar=f"{IAP}_APP_OAUTH2_CLIENT_SECRET", help="its secret")] = "",
    proxy: Annotated[str, typer.Option(help="address of an HTTP proxy on the way")] = "",
    ca_cert: Annotated[Path | None, typer.Option(help="certificate that signed the server's")] = None,
    account: Annotated[str, typer.Option("--service-account", help="account of the pods; default: the server's")] = "",
    compat: Annotated[bool, typer.Option("--compat", help="for servers before 2.17")] = False,
    image: Image = "",
    gpu_image: GpuImage = "",
    allow_tags: AllowTags = False,
    preset: Preset = "sample",
    data: Data = None,
    set_: Set = [],  # noqa: B006
) -> None:
    """Run the pipeline on a Kubeflow Pipelines server, once or on a schedule."""
    from pipelines.compile import COMPAT, Images, compile_pipeline
    from pipelines.login import Access
    from pipelines.submit import Submission, check_cron, follow_run, schedule_pipeline, submit_pipeline

    config = _config(preset, data, set_)
    access = Access(
        host, namespace, token, token_file, cookies, ca_cert, client_id, other_client_id, other_client_secret, proxy
    )
    if schedule:
        check_cron(schedule)
    package = compile_pipeline(Settings().make_state() / "kintsugi.yaml", Images(image, gpu_image))
    if compat:
        package = package.with_name(f"{package.stem}{COMPAT}.yaml")
    _require_clean(package, allow_tags)
    submission = Submission(package, config, preset, account)
    if schedule:
        console.print(f"schedule {schedule_pipeline(submission, access, console, schedule)}")
        return
    server, run_id = submit_pipeline(submission, access, console)
    if follow:
        console.print(follow_run(server, run_id, config, console))


def _require_clean(package: Path, allow_tags: bool) -> None:
    from pipelines.lint import inspect

    if findings := inspect(package, allow_tags=allow_tags):
        raise ConfigError("; ".join(findings))


@cli.command("lint")
def lint_(
    pipeline: Annotated[Path, typer.Argument(help="a compiled pipeline")] = Path("build/kintsugi.yaml"),
    allow_tags: AllowTags = False,
) -> None:
    """Look for what Kubeflow Pipelines runs wrongly without a word."""
    from pipelines.lint import inspect

    findings = inspect(pipeline, allow_tags=allow_tags)
    for finding in findings:
        console.print(f"✗ {finding}")
    if findings:
        raise typer.Exit(1)
    console.print(f"✓ {pipeline}")


@cli.command()
def parameters(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="file to write; default: print")] = None,
) -> None:
    """Print every parameter, preset and GPU profile as Markdown (docs/parameters.md)."""
    from components.form import document
    from components.manifest import write_file

    if output is None:
        console.print(document(), highlight=False)
    else:
        write_file(output, document())


cli.registered_commands += verbs.registered_commands  # listed here, where add_typer would list them last


@cli.command("sync")
def sync_() -> None:
    """Deliver to MLflow what trainings logged while it did not answer."""
    from components.tracking import sync

    number = sync(Settings())
    console.print(f"delivered {number} entries" if number else "nothing waits")


@cli.command()
def doctor() -> None:
    """Say what this machine has, and what is missing."""
    from pipelines.doctor import examine

    if not examine(Settings(), Console(highlight=False)):
        raise typer.Exit(2)


def main() -> None:
    """The console script: errors that users can mend are one sentence and exit code 2."""
    from components.progress import explain

    try:
        cli()
    except (ValueError, OSError) as error:
        _fail(explain(error))
    except KeyboardInterrupt:
        _fail(_INTERRUPTED)
    except SystemExit as ended:
        if ended.code == _CLICK_INTERRUPTED:
            _fail(_INTERRUPTED)
        raise
    except Exception as error:
        mlflow = sys.modules.get("mlflow.exceptions")  # only tracking imports it
        if mlflow is None or not isinstance(error, mlflow.MlflowException):
            raise
        _fail(f"MLflow at {Settings().mlflow_uri} does not answer as it should: {explain(error)}")


def _fail(sentence: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(f"error: {sentence}")
    sys.exit(2)


def _config(preset: str, data: str | None, assignments: list[str]) -> PipelineConfig:
    parameters = load_preset(preset) | parse_assignments(assignments)
    if data is not None:
        parameters["data_source"] = data
    return PipelineConfig.from_flat(parameters)


def _here(config: PipelineConfig) -> PipelineConfig:
    """The run with files and folders of this machine made absolute, since steps run in folders of their own."""
    flat = config.flat()
    places = ("data_source", "data_mask_source", "data_reference")
    return PipelineConfig.from_flat(flat | {name: locate(name, str(flat[name])) for name in places})


if __name__ == "__main__":
    main()
