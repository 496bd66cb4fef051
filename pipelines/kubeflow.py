"""A Kubeflow Pipelines server over its REST API: what it is asked, what it answers, and errors that say what to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.login import Access, SubmitError, configuration

PIPELINE = "kintsugi-training"
_TIMEOUT = (5.0, 60.0)  # seconds to connect, and to answer
_BODY = 300  # characters of an answer that are worth repeating


class Kubeflow:
    """One server. Every call raises ``SubmitError`` in one sentence where it does not do as asked."""

    def __init__(self, access: Access) -> None:
        """Ask the server how it is, so that a wrong address or login is told at once."""
        import kfp_server_api as api

        self.access = access
        self.host = access.host.rstrip("/") if "://" in access.host else f"https://{access.host.rstrip('/')}"
        client = api.ApiClient(configuration(access, self.host), cookie=access.cookies or None)
        self._api = api
        self._pipelines, self._upload = api.PipelineServiceApi(client), api.PipelineUploadServiceApi(client)
        self._experiments, self._runs = api.ExperimentServiceApi(client), api.RunServiceApi(client)
        self._recurring = api.RecurringRunServiceApi(client)
        health = self._call(api.HealthzServiceApi(client).healthz_service_get_healthz)
        if not _is_json(client.last_response.data):
            raise SubmitError(self._stranger("a web page"))
        if health.multi_user and not access.namespace:
            raise SubmitError(f"{self.host} serves several users; say in whose namespace to run: --namespace")

    def upload(self, package: Path) -> tuple[str, str, bool]:
        """The ids of the pipeline and of the version that this file is, and whether it had to be uploaded."""
        version = f"{hashlib.sha256(package.read_bytes()).hexdigest()[:16]}"
        pipeline = self._pipeline()
        if not pipeline:
            made = self._call(self._upload.upload_pipeline, str(package), name=PIPELINE, namespace=self._namespace)
            pipeline = str(made.pipeline_id)
        else:
            known = self._call(
                self._pipelines.pipeline_service_list_pipeline_versions, pipeline, filter=_named(version)
            ).pipeline_versions
            if known:
                return pipeline, str(known[0].pipeline_version_id), False
        uploaded = self._call(self._upload.upload_pipeline_version, str(package), name=version, pipelineid=pipeline)
        return pipeline, str(uploaded.pipeline_version_id), True

    def experiment(self, name: str) -> str:
        """The id of an experiment, made where it is missing."""
        found = self._call(
            self._experiments.experiment_service_list_experiments, filter=_named(name), namespace=self._namespace
        ).experiments
        if found:
            return str(found[0].experiment_id)
        wanted = self._api.V2beta1Experiment(display_name=name, namespace=self._namespace)
        return str(self._call(self._experiments.experiment_service_create_experiment, wanted).experiment_id)

    def start(self, version: tuple[str, str], experiment: str, name: str, form: dict[str, Any], account: str) -> str:
        """Start a run; returns its id."""
        run = self._api.V2beta1Run(display_name=name, **self._asked(version, experiment, form, account))
        return str(self._call(self._runs.run_service_create_run, run).run_id)

    def schedule(
        self, version: tuple[str, str], experiment: str, name: str, form: dict[str, Any], account: str, cron: str
    ) -> str:
        """Start a run again and again, one at a time, missed ones left out; returns the id of the recurring run."""
        trigger = self._api.V2beta1Trigger(cron_schedule=self._api.V2beta1CronSchedule(cron=cron))
        recurring = self._api.V2beta1RecurringRun(
            display_name=name, trigger=trigger, max_concurrency="1", no_catchup=True, mode="ENABLE",
            **self._asked(version, experiment, form, account),
        )  # fmt: skip
        return str(self._call(self._recurring.recurring_run_service_create_recurring_run, recurring).recurring_run_id)

    def run(self, run_id: str) -> Any:
        """A run as it is now."""
        return self._call(self._runs.run_service_get_run, run_id)

    def page(self, run_id: str, kind: str = "runs") -> str:
        """The address of the page of a run, or of a recurring one (``"recurringrun"``)."""
        return f"{self.host}/#/{kind}/details/{run_id}"

    @property
    def _namespace(self) -> str | None:
        return self.access.namespace or None

    def _pipeline(self) -> str:
        found = self._call(
            self._pipelines.pipeline_service_list_pipelines, filter=_named(PIPELINE), namespace=self._namespace
        ).pipelines
        return str(found[0].pipeline_id) if found else ""

    def _asked(self, version: tuple[str, str], experiment: str, form: dict[str, Any], account: str) -> dict[str, Any]:
        reference = self._api.V2beta1PipelineVersionReference(pipeline_id=version[0], pipeline_version_id=version[1])
        return {
            "experiment_id": experiment,
            "pipeline_version_reference": reference,
            "runtime_config": self._api.V2beta1RuntimeConfig(parameters=form),
            "service_account": account or None,
        }

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        given = {name: value for name, value in named.items() if value is not None}
        with self._errors():
            return method(*arguments, **given, _request_timeout=_TIMEOUT)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from kfp_server_api.exceptions import ApiException, OpenApiException
        from urllib3.exceptions import HTTPError, LocationParseError

        try:
            yield
        except SubmitError:
            raise
        except ApiException as error:
            raise SubmitError(self._refusal(int(error.status or 0), error.body, str(error.reason))) from None
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(error, LocationParseError):
                raise SubmitError(f"{self.host} is no address; write e.g. --host http://localhost:8080") from None
            hint = "check --host and that the server is up"
            raise SubmitError(f"{self.host} cannot be reached ({reason}); {hint}") from None
        except (OpenApiException, AttributeError, TypeError, ValueError) as error:
            hidden = error.__context__  # the client trips over its own error where a certificate is wrong
            if isinstance(hidden, ApiException) and not hidden.status:
                unknown = "has a certificate nobody here knows; give its CA with --ca-cert"
                raise SubmitError(f"{self.host} {unknown}") from None
            raise SubmitError(self._stranger(type(error).__name__)) from None

    def _stranger(self, what: str) -> str:
        return (
            f"{self.host} answers, but not as Kubeflow Pipelines does ({what}); if that is a login page, give --token, "
            "--client-id (Google's Identity-Aware Proxy) or --cookies, else check --host"
        )

    def _refusal(self, status: int, body: Any, reason: str) -> str:
        said = _said(body) or reason
        user, place = f"in namespace {self.access.namespace!r}", "it needs the namespace of one of your profiles"
        match status:
            case 401:
                hint = (
                    "log in: --token (KINTSUGI_TOKEN), --token-file, --client-id, --cookies; a token may have run out"
                )
            case 403 if self.access.namespace:
                hint = f"this login may not do that {user}; {place}: --namespace"
            case 403:
                hint = "this login may not do that; give another --token or --cookies, or your --namespace"
            case 404:
                hint = "is that the address of Kubeflow Pipelines? Behind Kubeflow's dashboard it ends in /pipeline"
            case 400 if "literal" in said.lower() or "unknown field" in said.lower():
                hint = "it may be older than 2.17; submit with --compat"
            case _:
                hint = "see the server's log for more"
        return f"{self.host} answered {status}: {said}; {hint}"


def _is_json(text: Any) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _named(name: str) -> str:
    """A filter of the API's list calls."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _said(body: Any) -> str:
    """What an answer says, in one line."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        content = json.loads(text)
        text = str(content.get("message") or content.get("error") or text)
    except (ValueError, AttributeError):
        text = "" if "<html" in text.lower() else text
    return " ".join(text.split())[:_BODY]
