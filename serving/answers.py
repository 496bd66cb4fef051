"""What the endpoint answers as JSON, and what it says of its models."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.responses import Response

from serving.engine import Engine
from serving.models import Models
from serving.observing import Record
from serving.repair import Repair, encode_mask
from serving.settings import ServingSettings

_PICTURE = {"contentEncoding": "base64"}


class ModelName(BaseModel):
    """Which model made a repair."""

    name: str
    version: str
    digest: str
    run_id: str


class RepairAnswer(BaseModel):
    """A repair as JSON."""

    image: Annotated[
        str | None, Field(description="null where only the mask was asked for", json_schema_extra=_PICTURE)
    ]
    format: Literal["png", "webp", "jpeg"]
    width: int
    height: int
    mask: Annotated[str, Field(description="the mask that was used, as PNG", json_schema_extra=_PICTURE)]
    mask_source: Literal["given", "alpha", "found"]
    model: ModelName
    timing_ms: dict[str, float]
    request_id: str


class EngineDescription(BaseModel):
    """What runs a model."""

    runtime: str
    precision: str
    threads: int


class RefusalDescription(BaseModel):
    """A model that was offered and not taken."""

    model: str
    reason: str
    at: str


class Limits(BaseModel):
    """What is refused above."""

    max_body_bytes: int
    max_pixels: int


class ModelDescription(ModelName):
    """A model and where it comes from."""

    dataset: str | None
    code: str | None
    architecture: str | None
    scores: Any
    decision: Any
    blind: Annotated[bool, Field(description="whether this server repairs without a mask")]
    engine: EngineDescription


class ServedAnswer(ModelDescription):
    """What is served."""

    blind_model: ModelDescription | None
    served_since: str
    last_refused: RefusalDescription | None
    limits: Limits


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


def name_model(engine: Engine) -> dict[str, str]:
    """Name, version, digest and run of a model."""
    return {name: str(engine.provenance.get(name, "")) for name in ModelName.model_fields}


def model_headers(engine: Engine) -> dict[str, str]:
    """The headers that say which model answers."""
    named = name_model(engine)
    return {"X-Model-Version": named["version"], "X-Model-Digest": named["digest"], "X-Run-Id": named["run_id"]}


def describe_served(models: Models, settings: ServingSettings) -> dict[str, Any]:
    """What ``GET /model`` answers, see ``ServedAnswer``."""
    served = models.current
    finds = served.finder is not None
    return {
        **_describe(served.model, blind=finds),
        "blind_model": _describe(served.blind, blind=True) if served.blind else None,
        "served_since": served.since.isoformat(timespec="seconds"),
        "last_refused": models.last_refused.describe() if models.last_refused else None,
        "limits": {"max_body_bytes": settings.max_body_bytes, "max_pixels": settings.max_pixels},
    }


def answer_repair(repair: Repair, record: Record, headers: Headers) -> Response:
    """The picture, or JSON where that is what the request accepts."""
    record.headers |= {**model_headers(repair.engine), "X-Mask-Source": repair.source, "Vary": "Accept"}
    if not prefers_json(headers.get("accept", "")):
        return Response(repair.content, media_type=repair.media_type)
    height, width = repair.mask.shape
    answer = RepairAnswer(
        image=None if repair.only_mask else _base64(repair.content),
        format=repair.media_type.removeprefix("image/"),
        width=width,
        height=height,
        mask=_base64(repair.content if repair.only_mask else encode_mask(repair.mask)),
        mask_source=repair.source,
        model=ModelName(**name_model(repair.engine)),
        timing_ms=record.milliseconds(),
        request_id=record.request_id,
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def prefers_json(accept: str) -> bool:
    """Whether an Accept header names JSON, and no picture that it likes better."""
    qualities: dict[str, float] = {}
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        given = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        qualities[kind] = float(given) if given.replace(".", "", 1).isdecimal() and given.isascii() else 0.0
    json = qualities.get("application/json", 0.0)
    return json > 0 and json >= max((q for kind, q in qualities.items() if kind.startswith("image/")), default=0.0)


def _describe(engine: Engine, *, blind: bool) -> dict[str, Any]:
    known = {name: engine.provenance.get(name) for name in ("dataset", "code", "architecture", "scores", "decision")}
    return {**name_model(engine), **known, "blind": blind, "engine": engine.description}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
