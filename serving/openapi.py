"""The description of the endpoint for machines: OpenAPI 3.1, made from the models that read and answer requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from serving.answers import Problem, RepairAnswer, ServedAnswer
from serving.options import JsonRequest
from serving.problems import MEDIA_TYPE

_REASONS = {
    400: "The body or a picture in it cannot be read.",
    401: "An API key is needed, or is not known.",
    408: "The request took too long to arrive; the connection is closed.",
    413: "The request, or the picture in it, is too large.",
    415: "The body is neither a form nor JSON, or a file is no PNG, JPEG or WebP.",
    422: "A field is unknown, missing or wrong, the mask does not fit, or no model here finds damage itself.",
    429: "Too many requests wait.",
    431: "The headers are too large; the connection is closed.",
    503: "There is too little memory just now.",
    504: "The deadline passed.",
}
_HEADERS = {
    "X-Request-Id": "the request's own id, or one made for it",
    "X-Model-Version": "version of the model in the registry",
    "X-Model-Digest": "digest of its weights",
    "X-Run-Id": "the MLflow run that trained it",
    "X-Mask-Source": "given, alpha or found",
    "Server-Timing": "decode, queue, repair and encode, in milliseconds",
}
_ON_ERRORS = ("X-Request-Id", "X-Model-Version", "X-Model-Digest", "X-Run-Id")
_CUT, _UNSERVED = (408, 431), ("X-Request-Id",)  # answered by ``connections``, before anybody looks for a model


def describe_api(*, keys: bool) -> dict[str, Any]:
    """The whole description; ``keys``: whether calls need one."""
    _, schemas = models_json_schema(
        [(JsonRequest, "validation"), *((m, "serialization") for m in (RepairAnswer, ServedAnswer, Problem))],
        ref_template="#/components/schemas/{model}",
    )
    components: dict[str, Any] = {"schemas": {**schemas["$defs"], "FormRequest": _form_schema()}}
    if keys:
        components["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
    security: dict[str, Any] = {"security": [{"key": []}, {"bearer": []}]} if keys else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Kintsugi", "version": "1.0.0", "description": "Mends pictures."},
        "paths": {
            "/inpaint": {"post": _inpaint(keys) | security},
            "/model": {"get": _model(keys) | security},
            "/": {"get": _plain("The page.", {"text/html": {}})},
            "/openapi.json": {"get": _plain("This description.", {"application/json": {}})},
            "/metrics": {"get": _plain("Metrics for Prometheus.", {"text/plain": {}})},
            **{path: {"get": _plain("For probes.", {"text/plain": {}})} for path in ("/livez", "/readyz", "/healthz")},
        },
        "components": components,
    }


def _inpaint(keys: bool) -> dict[str, Any]:
    statuses = [status for status in _REASONS if keys or status != 401]
    pictures = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _pictures()}
    return {
        "operationId": "inpaint",
        "summary": "Repair a picture where its mask is white.",
        "description": "Pixels outside the mask come back bit for bit in PNG and WebP. EXIF orientation is applied, "
        "alpha and an RGB colour profile are kept. With Accept: application/json the answer is JSON.",
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": _ref("FormRequest"),
                    "encoding": {name: {"contentType": ", ".join(_pictures())} for name in ("image", "mask")},
                },
                "application/json": {"schema": _ref(JsonRequest.__name__)},
            },
        },
        "responses": {
            "200": {
                "description": "The picture, or the mask that was asked for, or JSON with both.",
                "headers": _headers(_HEADERS),
                "content": {**pictures, "application/json": {"schema": _ref(RepairAnswer.__name__)}},
            },
            **{str(status): _problem(status, _UNSERVED if status in _CUT else _ON_ERRORS) for status in statuses},
        },
    }


def _model(keys: bool) -> dict[str, Any]:
    answer = {
        "description": "Version, digests, scores, limits.",
        "headers": _headers(("X-Request-Id",)),
        "content": {"application/json": {"schema": _ref(ServedAnswer.__name__)}},
    }
    errors = {"401": _problem(401, ("X-Request-Id",))} if keys else {}
    return {"operationId": "model", "summary": "What is served.", "responses": {"200": answer, **errors}}


def _plain(summary: str, content: Mapping[str, Any]) -> dict[str, Any]:
    answer = {"description": summary, "headers": _headers(("X-Request-Id",)), "content": dict(content)}
    return {"summary": summary, "responses": {"200": answer}}


def _form_schema() -> dict[str, Any]:
    """The fields of JSON, the files as they are."""
    schema: dict[str, Any] = {**JsonRequest.model_json_schema(), "title": "FormRequest"}
    files = {
        name: {"type": "string", "format": "binary", "description": schema["properties"][name]["description"]}
        for name in ("image", "mask")
    }
    return {**schema, "properties": {**schema["properties"], **files}}


def _problem(status: int, headers: tuple[str, ...]) -> dict[str, Any]:
    extra = {429: "Retry-After", 503: "Retry-After", 401: "WWW-Authenticate"}.get(status)
    return {
        "description": _REASONS[status],
        "headers": _headers((*headers, extra) if extra else headers),
        "content": {MEDIA_TYPE: {"schema": _ref(Problem.__name__)}},
    }


def _headers(names: Mapping[str, str] | tuple[str, ...]) -> dict[str, Any]:
    kind = {"Retry-After": {"type": "integer", "minimum": 1}}
    return {
        name: {"description": _HEADERS.get(name, name), "required": True, "schema": kind.get(name, {"type": "string"})}
        for name in names
    }


def _pictures() -> tuple[str, ...]:
    return ("image/png", "image/jpeg", "image/webp")


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
