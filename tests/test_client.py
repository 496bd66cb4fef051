"""The client of the endpoint: what it sends, how it waits, what it says when it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest

from components.client import InpaintClient, InpaintError
from components.inpainting.images import Bytes, decode_image, decode_mask, encode_png
from tests.endpoint import Answer, Endpoint, run_endpoint


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with run_endpoint() as endpoint:
        yield endpoint


def test_files_bytes_and_pixels_are_sent_with_options_and_key(
    endpoint: Endpoint, photographs: list[Bytes], tmp_path: Path
) -> None:
    image = photographs[0]
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[3:9, 4:8] = 255
    file = tmp_path / "photo.png"
    file.write_bytes(encode_png(image))
    with InpaintClient(endpoint.url, "secret") as client:
        for sent in (file, file.read_bytes(), image):
            repaired = client.inpaint(sent, mask, format="webp", grow_mask=3)
            assert np.array_equal(repaired.pixels, 255 - image)
            assert (repaired.version, repaired.mask_source, repaired.media_type) == ("7", "given", "image/png")
    for request in endpoint.requests:
        assert np.array_equal(decode_image(request["parts"]["image"]), image)
        assert np.array_equal(decode_mask(request["parts"]["mask"]), mask // 255)
        assert (request["parts"]["format"], request["parts"]["grow_mask"]) == (b"webp", b"3")
        assert request["headers"]["Authorization"] == "Bearer secret"


def test_without_a_mask_none_is_sent(endpoint: Endpoint, photographs: list[Bytes]) -> None:
    with InpaintClient(endpoint.url) as client:
        assert client.inpaint(photographs[0]).mask_source == "found"
    assert set(endpoint.requests[0]["parts"]) == {"image"}
    assert "Authorization" not in endpoint.requests[0]["headers"]


def test_it_waits_as_long_as_a_busy_endpoint_asks_for(endpoint: Endpoint, photographs: list[Bytes]) -> None:
    soon = format_datetime(datetime.now(UTC) - timedelta(seconds=5), usegmt=True)
    endpoint.script = [Answer.problem(429, "busy", Retry_After="0"), Answer.problem(503, "loading", Retry_After=soon)]
    with InpaintClient(endpoint.url) as client:
        assert client.inpaint(photographs[0]).version == "7"
    assert len(endpoint.requests) == 3


def test_its_patience_ends(endpoint: Endpoint, photographs: list[Bytes]) -> None:
    endpoint.script = [Answer.problem(429, "The queue is full; try again in 30 s.", Retry_After="30")] * 2
    with InpaintClient(endpoint.url, patience=10) as client, pytest.raises(InpaintError) as refused:
        client.inpaint(photographs[0])
    assert str(refused.value) == "The queue is full; try again in 30 s."
    assert (refused.value.status, refused.value.request_id) == (429, "r1")
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer.problem(422, "mask: paint the damage white."), "mask: paint the damage white."),
        (Answer(502, b"<html>bad gateway</html>"), "answers 502 Bad Gateway"),
        (Answer(500, b"[1]"), "answers 500"),
        (Answer(200, b"hello", {"Content-Type": "text/html"}), "answers with no picture; is it an inpaint endpoint?"),
    ],
)
def test_a_refusal_is_the_endpoints_own_sentence(
    answer: Answer, sentence: str, endpoint: Endpoint, photographs: list[Bytes]
) -> None:
    endpoint.script = [answer]
    with InpaintClient(endpoint.url) as client, pytest.raises(InpaintError) as refused:
        client.inpaint(photographs[0])
    assert sentence in str(refused.value)
    assert refused.value.status == answer.status
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("url", "sentence"),
    [("http://127.0.0.1:1", "does not answer"), ("127.0.0.1:1", "does not answer"), ("http://a b:x", "is no address")],
)
def test_an_endpoint_that_is_not_there(url: str, sentence: str, photographs: list[Bytes]) -> None:
    with pytest.raises(InpaintError, match=sentence), InpaintClient(url) as client:
        client.inpaint(photographs[0])
