"""The description is checked against the server: schemathesis makes requests from it, good and bad ones."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from components.inpainting.images import Bytes
from serving.app import build_app
from tests.served import client_of, make_parts, write_model

SIDE = 160  # no mask that is grown covers all of it


def pictures() -> dict[str, bytes]:
    """Files that may be picture and mask: grey, white in one corner."""
    pixels: Bytes = np.full((SIDE, SIDE, 3), 90, np.uint8)
    pixels[2:9, 2:20] = 255
    files = {}
    for kind in ("png", "jpeg", "webp"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        files[f"image/{kind}"] = buffer.getvalue()
    return files


def findings(folder: Path, keys: str, examples: int) -> tuple[list[str], set[str]]:
    """What schemathesis finds in a server that asks for these keys, and the operations that it called."""
    write_model(folder / "model")
    files = pictures()
    for kind, content in files.items():
        schemathesis.openapi.media_type(kind, st.just(content))
    schemathesis.openapi.format("picture", st.sampled_from([base64.b64encode(c).decode() for c in files.values()]))
    settings = {"seed": 1, "generation": {"max-examples": examples, "deterministic": True}}
    config = SchemathesisConfig.from_dict(settings | ({"headers": {"X-API-Key": keys}} if keys else {}))
    app = build_app(make_parts(folder, blind=True, api_keys=keys))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    found: list[str] = []
    called = set()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.append(repr(event))
        elif isinstance(event, events.ScenarioFinished):
            called |= {event.recorder.label} if event.recorder.cases else set()
            checks = [check for checks in event.recorder.checks.values() for check in checks]
            found += [f"{event.recorder.label}: {c.failure_info.failure}" for c in checks if c.failure_info]
    return found, called


@pytest.mark.parametrize("keys", ["", "secret"])
def test_schemathesis_finds_nothing(keys: str, tmp_path: Path) -> None:
    found, called = findings(tmp_path, keys, examples=int(os.environ.get("KINTSUGI_TEST_EXAMPLES", "20")))
    assert found == []
    assert called >= {"POST /inpaint", "GET /model", "GET /", "GET /metrics", "GET /livez", "GET /readyz"}


def test_every_status_and_header_that_is_described_has_its_place(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    with client_of(make_parts(tmp_path)) as client:
        described = client.get("/openapi.json").json()
        assert described["openapi"] == "3.1.0"
        answers = described["paths"]["/inpaint"]["post"]["responses"]
        assert set(answers) == {"200", "400", "408", "413", "415", "422", "429", "431", "503", "504"}
        assert set(answers["200"]["content"]) == {"image/png", "image/jpeg", "image/webp", "application/json"}
        assert all(set(answers[s]["content"]) == {"application/problem+json"} for s in answers if s != "200")
        assert "Retry-After" in answers["429"]["headers"]
        for path, operations in described["paths"].items():
            assert ("get" in operations) == (client.get(path).status_code == 200)
        assert "securitySchemes" not in described["components"]
