"""The fields of a request to repair a picture, as a form and as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails

from serving.problems import Problem

MAX_GROWTH, MAX_FEATHER = 64, 32
FILES = ("image", "mask")

_NUMBER = re.compile(r"-?[0-9]{1,9}")


def _whole(value: Any) -> Any:
    """49.0 is an integer in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)


class Options(BaseModel):
    """What is asked of a repair besides the picture."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Annotated[
        Literal["png", "webp", "jpeg", "same"],
        Field(description="of the answer; png and webp are lossless, same is the picture's own"),
    ] = "png"
    quality: Annotated[int, Field(ge=1, le=100, description="of a JPEG"), _WHOLE] = 90
    grow_mask: Annotated[
        int, Field(ge=0, le=MAX_GROWTH, description="pixels by which the hole is made larger"), _WHOLE
    ] = 0
    feather: Annotated[
        int,
        Field(ge=0, le=MAX_FEATHER, description="pixels over which the repair fades, within what grow_mask added"),
        _WHOLE,
    ] = 0
    output: Annotated[
        Literal["image", "mask"],
        Field(description="the repaired picture, or the mask that says where it would be repaired, as PNG"),
    ] = "image"


_BASE64 = {"contentEncoding": "base64", "format": "picture"}


class JsonRequest(Options):
    """A request as JSON: the fields of the form, the files as base64."""

    image: Annotated[
        str, Field(description="PNG, JPEG or WebP, as base64 in the standard alphabet", json_schema_extra={**_BASE64})
    ]
    mask: Annotated[
        str | None,
        WithJsonSchema({"type": ["string", "null"], **_BASE64}),
        Field(
            description="of the picture's size, white = hole; without one the alpha channel is the mask, and "
            "without that the damage is searched for",
        ),
    ] = None


def parse_form(fields: Mapping[str, str]) -> Options:
    """Options from the text fields of a form; quoted text is taken as JSON, as BentoML's client sends it.

    Raises ``Problem`` naming the fields that are unknown or wrong.
    """
    values: dict[str, Any] = {}
    for name, text in fields.items():
        plain = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
        values[name] = int(plain) if name in _NUMBERS and _NUMBER.fullmatch(plain) else plain
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        raise _problem(error.errors()) from None


def parse_json(body: bytes) -> JsonRequest:
    """A request from a JSON body. Raises ``Problem``."""
    try:
        return JsonRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise Problem(400, f"The body is no JSON ({first['ctx']['error']}); send one JSON object.") from None
        raise _problem(error.errors()) from None


def _problem(errors: Sequence[ErrorDetails]) -> Problem:
    unknown = sorted(repr(str(e["loc"][0]))[:80] for e in errors if e["type"] == "extra_forbidden")
    if unknown:
        known = ", ".join((*FILES, *Options.model_fields))
        return Problem(422, f"There is no field {', '.join(unknown[:8])}; the fields are {known}.")
    wrong = [f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in errors]
    return Problem(422, f"{'; '.join(wrong)}.")


_NUMBERS = frozenset(name for name, field in Options.model_fields.items() if field.annotation is int)
