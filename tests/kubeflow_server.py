"""A Kubeflow Pipelines API on loopback whose contract is read from the API's own generated client.

Paths, methods, parameters and the JSON of every message come from ``kfp_server_api``, which is generated
from the OpenAPI document of the server. A request that this contract does not know is answered with 400,
as the real server's strict parser does, and every answer is made from the contract's models.
"""

from __future__ import annotations

import inspect
import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.loopback import serve_http

_APIS = (
    kfp_server_api.HealthzServiceApi, kfp_server_api.PipelineServiceApi, kfp_server_api.PipelineUploadServiceApi,
    kfp_server_api.ExperimentServiceApi, kfp_server_api.RunServiceApi, kfp_server_api.RecurringRunServiceApi,
)  # fmt: skip


_KINDS: dict[str, Any] = {
    "str": str, "int": int, "bool": bool, "float": (int, float),
    "STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool,
}  # fmt: skip


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Operation:
    """One call of the contract."""

    name: str
    method: str
    pattern: re.Pattern[str]
    query: frozenset[str]
    body: str  # the model of the request
    answer: str  # the model of the answer


def contract() -> list[Operation]:
    """All calls of the generated client: where it sends them, what it may say, what it expects."""
    return [
        operation(name.removesuffix("_with_http_info"), inspect.getsource(function))
        for api in _APIS
        for name, function in vars(api).items()
        if name.endswith("_with_http_info")
    ]


def operation(name: str, source: str) -> Operation:
    path, method = re.findall(r"call_api\(\s*'([^']+)', '([A-Z]+)'", source)[0]
    body = re.findall(r":param (\w+): .*\n\s+:type \1: ((?:V2beta1|Google)\w+)", source)
    answer = re.findall(r"response_type='(\w+)'", source)[0]
    pattern = re.compile("^" + re.sub(r"\{[^}]+\}", "([^/:]+)", path) + "$")
    query = frozenset(re.findall(r"query_params\.append\(\('([^']+)'", source))
    sent = next((model for parameter, model in body if f"body_params = local_var_params['{parameter}']" in source), "")
    return Operation(name, method, pattern, query, sent, answer)


def check(model: str, content: Any) -> None:
    """Refuse what a strict parser refuses: fields that the model does not have, and wrong types."""
    if model.startswith("list["):
        for item in content:
            check(model[5:-1], item)
    elif model.startswith("dict("):
        for item in content.values():
            check(model[5:-1].partition(", ")[2], item)
    elif hasattr(kfp_server_api, model):
        kind = getattr(kfp_server_api, model)
        if kind.openapi_types:
            names = {json_name: kind.openapi_types[name] for name, json_name in kind.attribute_map.items()}
            if not isinstance(content, dict):
                raise Refused(400, f"{model} is no object")
            for name, value in content.items():
                if name not in names:
                    raise Refused(400, f'unknown field "{name}" in {model}')
                check(names[name], value)
        elif content not in kind.allowable_values:
            raise Refused(400, f"{content!r} is no {model}")
    elif not isinstance(content, _KINDS.get(model, object)):
        raise Refused(400, f"{content!r} is no {model}")


@dataclass
class Server:
    """The state behind the API, and how a run goes: lists of (state of the run, states of its steps)."""

    script: list[tuple[str, dict[str, str]]] = field(default_factory=lambda: [("SUCCEEDED", {})])
    errors: dict[str, str] = field(default_factory=dict)  # why steps fail
    multi_user: bool = False
    token: str = ""
    cookie: str = ""
    namespaces: tuple[str, ...] = ()
    page: bytes = b""  # instead of every answer: a login page
    outages: int = 0  # looks at a run that are answered with 503
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    recurring: list[dict[str, Any]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # the calls

    def answer(self, name: str, ids: list[str], query: dict[str, str], body: Any) -> dict[str, Any]:
        """What a call gives; unknown ones are refused."""
        self.seen.append(name)
        handlers: dict[str, Callable[[], dict[str, Any]]] = {
            "healthz_service_get_healthz": lambda: {"multi_user": self.multi_user},
            "pipeline_service_list_pipelines": lambda: {"pipelines": self._named(self.pipelines, query)},
            "pipeline_service_list_pipeline_versions": lambda: {
                "pipeline_versions": [v for v in self._named(self.versions, query) if v["pipeline_id"] == ids[0]]
            },
            "upload_pipeline": lambda: self._upload(query, body, "pipeline"),
            "upload_pipeline_version": lambda: self._upload(query, body, "version"),
            "experiment_service_list_experiments": lambda: {"experiments": self._named(self.experiments, query)},
            "experiment_service_create_experiment": lambda: self._make(self.experiments, "experiment_id", body),
            "run_service_create_run": lambda: self._run(body, self.runs, "run_id"),
            "run_service_get_run": lambda: self._look(ids[0]),
            "recurring_run_service_create_recurring_run": lambda: self._run(body, self.recurring, "recurring_run_id"),
        }
        if name not in handlers:
            raise Refused(501, f"{name} is not played here")
        return handlers[name]()

    def authorise(self, headers: Any, query: dict[str, str], body: Any) -> None:
        """Who asks, and in which namespace."""
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request header error: there is no user identity header.")
        if self.cookie and headers.get("Cookie") != self.cookie:
            raise Refused(401, "no session")
        asked = query.get("namespace") or (body.get("namespace") if isinstance(body, dict) else "")
        if self.namespaces and asked and asked not in self.namespaces:
            raise Refused(403, f"User is not authorized with reason: access to namespace {asked} denied")

    def _named(self, items: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
        wanted = json.loads(query["filter"])["predicates"][0]
        assert wanted["operation"] == "EQUALS"
        return [item for item in items if item[wanted["key"]] == wanted["stringValue"]]

    def _make(self, items: list[dict[str, Any]], key: str, content: dict[str, Any]) -> dict[str, Any]:
        made = content | {key: f"{key.removesuffix('_id')}-{len(items) + 1}", "created_at": "2026-11-26T00:00:00Z"}
        items.append(made)
        return made

    def _upload(self, query: dict[str, str], document: bytes, kind: str) -> dict[str, Any]:
        spec, platform = yaml.safe_load_all(document)
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())  # strictly: an unknown field raises
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
        if kind == "pipeline":
            return self._make(self.pipelines, "pipeline_id", {"display_name": query["name"]})
        content = {"display_name": query["name"], "pipeline_id": query["pipelineid"], "pipeline_spec": spec}
        return self._make(self.versions, "pipeline_version_id", content)

    def _run(self, run: dict[str, Any], items: list[dict[str, Any]], key: str) -> dict[str, Any]:
        """As the real server does, refuse unknown parameters, wrong types and what is not among the literals."""
        reference = run["pipeline_version_reference"]["pipeline_version_id"]
        version = next(v for v in self.versions if v["pipeline_version_id"] == reference)
        fields = version["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        for name, value in run["runtime_config"]["parameters"].items():
            if name not in fields:
                raise Refused(400, f"parameter {name} is not defined")
            if not isinstance(value, _KINDS[fields[name]["parameterType"]]):
                raise Refused(400, f"parameter {name}: {value!r} is of the wrong type")
            if value not in fields[name].get("literals", [value]):
                raise Refused(400, f"parameter {name}: {value!r} is none of its literals")
        if not any(e["experiment_id"] == run["experiment_id"] for e in self.experiments):
            raise Refused(404, f"experiment {run['experiment_id']} not found")
        return self._make(items, key, run)

    def _look(self, run_id: str) -> dict[str, Any]:
        if self.outages:
            self.outages -= 1
            raise Refused(503, "upstream connect error")
        state, steps = self.script[0]
        if len(self.script) > 1:
            self.script.pop(0)
        found = next(run for run in self.runs if run["run_id"] == run_id)
        details = [
            {"display_name": step, "state": reached, "task_id": step}
            | ({"error": {"code": 2, "message": self.errors[step]}} if reached == "FAILED" else {})
            for step, reached in steps.items()
        ]
        return found | {"state": state, "run_details": {"task_details": details}}


OPERATIONS = contract()


@contextmanager
def serving(server: Server, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The API on a free port; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            if server.page:
                return self._send(200, server.page, "text/html")
            try:
                content = self._content()
                self._send(200, json.dumps(content).encode())
            except Refused as error:
                self._send(error.status, json.dumps({"code": 0, "message": str(error), "details": []}).encode())

        def _content(self) -> dict[str, Any]:
            address = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            for known in OPERATIONS:
                match = known.pattern.match(address.path)
                if match and known.method == self.command:
                    return self._call(known, list(match.groups()), address.query, body)
            raise Refused(404, f"no such path {address.path}")

        def _call(self, known: Operation, ids: list[str], raw: str, body: bytes) -> dict[str, Any]:
            query = {name: values[0] for name, values in parse_qs(raw).items()}
            if unknown := set(query) - known.query:
                raise Refused(400, f"unknown query parameters {sorted(unknown)} of {known.name}")
            content: Any = _file(self.headers["Content-Type"], body) if "upload" in known.name else {}
            if known.body:
                content = json.loads(body)
                check(known.body, content)
            server.authorise(self.headers, query, content)
            answer = server.answer(known.name, ids, query, content)
            check(known.answer, answer)
            return answer

        def _send(self, status: int, content: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with serve_http(Handler, tls) as host:
        yield f"http://{host}"


def _file(content_type: str, body: bytes) -> bytes:
    """The one file of a multipart upload, in the field that the API calls uploadfile."""
    boundary = content_type.partition("boundary=")[2].encode()
    (part,) = [part for part in body.split(b"--" + boundary) if b'name="uploadfile"' in part]
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
