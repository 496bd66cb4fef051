"""Submit the compiled pipeline to a Kubeflow Pipelines server."""

from __future__ import annotations

import warnings
from pathlib import Path

from components.config import PipelineConfig


class SubmitError(ValueError):
    """The server cannot be reached, or did not take the run."""


def submit_pipeline(package: Path, config: PipelineConfig, *, host: str, token: str | None) -> str:
    """Start a run of a compiled pipeline on ``host``; returns the address of its page.

    Raises ``SubmitError`` when the host is down or refuses, with its own words.
    """
    from kfp import Client
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    warnings.filterwarnings("ignore", module="kfp")
    try:
        client = Client(host=host, existing_token=token)
        run = client.create_run_from_pipeline_package(
            str(package), config.flat(), run_name=config.run.name, experiment_name=config.run.experiment
        )
    except ApiException as error:
        said = " ".join(str(error.body or error.reason).split())[:300]
        hint = "; give a token with --token or KINTSUGI_TOKEN" if error.status in (401, 403) else ""
        raise SubmitError(f"{host} answered {error.status}: {said}{hint}") from None
    except HTTPError as error:
        reason = getattr(error, "reason", error)
        raise SubmitError(f"{host} cannot be reached ({reason}); check --host and that the server is up") from None
    return f"{host.rstrip('/')}/#/runs/details/{run.run_id}"
