"""What broken clients and attackers send: always a 4xx with advice, before anything costly happens."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import pickle
import random
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from starlette.testclient import TestClient

from components.inpainting.images import Bytes, encode_png
from serving import app as serving_app
from serving.admission import Busy, Overdue
from serving.bodies import FORM
from tests.served import client_of, make_parts, post, white, write_model

NOISE = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
MASK = np.zeros((40, 48), np.uint8)
MASK[5:9, 5:20] = 1
PICTURE, HOLE = encode_png(NOISE), white(MASK)
BOUNDARY = {"content-type": f"{FORM}; boundary=b"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bento")
    write_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with client_of(make_parts(folder)) as client:
        yield client


def refused(answer, status: int, *words: str) -> None:
    """The answer is a problem of this status whose sentence holds these words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["type"] == "about:blank" and problem["title"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    for word in words:
        assert word in problem["detail"]


def encoded(kind: str, picture: Bytes = NOISE, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def animation(kind: str, frames: int) -> bytes:
    buffer = io.BytesIO()
    pictures = [Image.new("RGB", (8, 8), (number % 256, number // 256, 0)) for number in range(frames)]
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *before: bytes, after: bytes = b"") -> bytes:
    """A black PNG of this header, eight by eight pixels in truth, with more chunks before and after its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(25 * 8)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + pixels + after + chunk(b"IEND")


def jpeg(width: int, height: int, before: bytes = b"") -> bytes:
    """A JPEG of this header, whose pixels end early, with more bytes before its segments."""
    content = bytearray(encoded("JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content[:2] + before + content[2:])


def webp(width: int, height: int) -> bytes:
    body = (
        b"VP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    body += encoded("WEBP", lossless=True)[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


MEGABYTE, LARGE = zlib.compress(bytes(1 << 20)), zlib.compress(bytes(1 << 28))
BOMBS = {
    "PNG of 400 megapixels": (lambda: png(20_000, 20_000), 413),
    "JPEG of 4 gigapixels": (lambda: jpeg(65_535, 65_535), 413),
    "WebP of 268 megapixels": (lambda: webp(16_383, 16_383), 413),
    "GIF of 1,000 frames": (lambda: animation("GIF", 1000), 415),
    "APNG of 1,000 frames": (lambda: animation("PNG", 1000), 400),
    "WebP of 1,000 frames": (lambda: animation("WEBP", 1000), 400),
    "iCCP that unpacks to 256 MB": (lambda: png(8, 8, chunk(b"iCCP", b"k\0\0" + LARGE)), 400),
    "zTXt that unpacks to 256 MB": (lambda: png(8, 8, chunk(b"zTXt", b"k\0\0" + LARGE)), 400),
    "60 zTXt of a megabyte": (lambda: png(8, 8, *[chunk(b"zTXt", b"k\0\0" + MEGABYTE)] * 60), 413),
    "a million chunks": (lambda: png(8, 8, chunk(b"abCd") * 1_000_000), 413),
    "a million chunks at the end": (lambda: png(8, 8, after=chunk(b"abCd") * 1_000_000), 413),
    "a million segments": (lambda: jpeg(48, 40, b"\xff\xe1\x00\x02" * 1_000_000), 413),
    "ten megabytes of fill bytes": (lambda: jpeg(48, 40, b"\xff" * 10_000_000), 413),
    "ten megabytes of junk": (lambda: jpeg(48, 40, b"\xff\x00" * 5_000_000), 413),
    "a profile of eight megabytes": (lambda: encoded("WEBP", lossless=True, icc_profile=bytes(8 << 20)), 413),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(name: str, client: TestClient) -> None:
    make, status = BOMBS[name]
    bomb = make()
    assert len(bomb) < 13_000_000
    process = psutil.Process()
    before, cpu = process.memory_info().rss, process.cpu_times().user
    answers = [post(client, bomb, HOLE), post(client, PICTURE, bomb)]
    assert process.cpu_times().user - cpu < 1  # some milliseconds, and sending it; decoding one takes seconds
    assert process.memory_info().rss - before < 100 << 20
    refused(answers[0], status, "image: ")
    refused(answers[1], status, "mask: ")


def corpus() -> Iterator[tuple[bytes, bytes]]:
    """Pairs of picture and mask, one of them broken."""
    rng = random.Random(0)
    whole = [encoded(kind) for kind in ("PNG", "JPEG", "WEBP")] + [encoded("PNG", np.dstack([NOISE, MASK]))]
    broken = [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", bytes(1000), pickle.dumps([1])]
    broken += [encoded(kind) for kind in ("GIF", "BMP", "TIFF", "PPM", "ICO")] + [b"<svg/>", b"%PDF-1.4"]
    for content in whole:
        broken += [content[: rng.randrange(len(content) - 12)] for _ in range(10)]
        for _ in range(15):
            damaged = bytearray(content)
            for _ in range(rng.choice((1, 3, 30))):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            broken.append(bytes(damaged))
    for content in broken:
        yield content, HOLE
        yield PICTURE, content


def test_the_malformed_corpus_meets_no_500_takes_no_time_and_leaves_no_memory(client: TestClient) -> None:
    process = psutil.Process()
    memory = []
    for _ in range(2):
        for image, mask in corpus():
            began = time.process_time()
            answer = post(client, image, mask)
            assert time.process_time() - began < 2
            if answer.status_code != 200:  # some bytes do not matter, in a JPEG above all
                assert answer.status_code in (400, 413, 415, 422), answer.text
                refused(answer, answer.status_code)
        memory.append(process.memory_info().rss)
    assert memory[1] - memory[0] < 50 << 20
    assert post(client, PICTURE, HOLE).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"format": "gif"}, 422, ["format: ", "'png', 'webp', 'jpeg' or 'same'"]),
        ({"quality": "0"}, 422, ["quality: "]),
        ({"quality": "101"}, 422, ["quality: "]),
        ({"quality": "9.5"}, 422, ["quality: "]),
        ({"quality": "９"}, 422, ["quality: "]),
        ({"grow_mask": "65"}, 422, ["grow_mask: ", "less than or equal to 64"]),
        ({"grow_mask": "-1", "feather": "x"}, 422, ["grow_mask: ", "feather: "]),
        ({"output": ""}, 422, ["output: "]),
        ({"strength": "1", "prompt": "a cat"}, 422, ["no field 'prompt', 'strength'; the fields are image, mask"]),
        ({f"f{n}": "" for n in range(9)}, 400, ["Too many fields"]),
        ({"quality": "1" * (1 << 21)}, 400, ["Part exceeded"]),
        ({"format": '"webp"', "quality": '"7"'}, 200, []),
    ],
)
def test_fields_are_checked_by_name(fields: dict[str, str], status: int, words: list[str], client: TestClient) -> None:
    answer = post(client, PICTURE, HOLE, **fields)
    if status == 200:
        assert answer.status_code == 200
    else:
        refused(answer, status, *words)


def test_masks_have_to_fit(client: TestClient) -> None:
    refused(post(client, PICTURE, white(MASK[:30])), 422, "the mask is 48x30 pixels but the picture is 48x40")
    refused(post(client, PICTURE, white(MASK * 0)), 422, "paint the damage white")
    refused(post(client, PICTURE, white(MASK * 0 + 1)), 422, "covers the whole picture")
    refused(post(client, PICTURE, HOLE, grow_mask=64), 422, "covers the whole picture")


def test_files_are_files_and_text_is_text_and_nothing_is_fetched(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    reached = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: reached.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: reached.append(args))
    url = "http://127.0.0.1:1/x.png"
    for name in ("image", "mask"):
        files = {"image": ("i.png", PICTURE), "mask": ("m.png", HOLE)} | {name: (None, url)}
        refused(client.post("/inpaint", files=files), 422, f"'{name}' is text, not a file", f"-F {name}=@{name}.png")
        body = {"image": base64.b64encode(PICTURE).decode()} | {name: url}
        refused(client.post("/inpaint", json=body), 422, f"{name}: this is no base64")
        body[name] = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
        refused(client.post("/inpaint", json=body), 422, f"{name}: this is a data: URI")
    refused(client.post("/inpaint", files={"image": ("i.png", url.encode())}), 415, "image: this is no picture")
    quality = {"image": PICTURE, "quality": b"9"}
    refused(
        client.post("/inpaint", files=quality), 422, "'quality' is a file, not text; with curl, write -F quality=VALUE"
    )
    refused(client.post("/inpaint", files={"mask": HOLE}), 422, "'image' is missing")
    refused(
        client.post("/inpaint", files=[("image", PICTURE), ("image", PICTURE)]), 422, "'image' is there more than once"
    )
    assert reached == []


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "no JSON"), (b"{", 400, "no JSON"), (b"\xff\xfe", 400, "no JSON"), (b"[" * 100_000, 400, "no JSON"),
        (b"[]", 422, "the body"), (b"null", 422, "the body"), (b"{}", 422, "image: Field required"),
        (b'{"image": 5}', 422, "image: "), (b'{"image": "x", "quality": "9"}', 422, "quality: "),
        (b'{"image": "x", "quality": true}', 422, "quality: "), (b'{"image": "x", "url": "y"}', 422, "no field 'url'"),
        (b'{"image": "x", "quality": 1' + b"0" * 5000 + b"}", 400, "no JSON"), (b'{"image": "\xc3"}', 400, "no JSON"),
        (b'{"image": "aGVsbG8="}', 415, "image: this is no picture"), (b'{"image": "aGV_bG8="}', 422, "no base64"),
        (b'{"image": ""}', 415, "image: this is no picture"), (b'{"image": "\\ud800"}', 400, "no JSON"),
    ],
)  # fmt: skip
def test_json_is_checked(content: bytes, status: int, words: str, client: TestClient) -> None:
    refused(client.post("/inpaint", content=content, headers={"content-type": "application/json"}), status, words)


@pytest.mark.parametrize(
    ("headers", "content", "status", "words"),
    [
        ({}, b"x", 415, "Send multipart/form-data"),
        ({"content-type": "application/vnd.bentoml+pickle"}, pickle.dumps({"image": b""}), 415, "Send multipart"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"image=http://127.0.0.1/", 415, "Send multipart"),
        ({"content-type": FORM}, b"x", 400, "Missing boundary"),
        ({"content-type": f"{FORM}; boundary="}, b"x", 400, "form cannot be read"),
        ({"content-type": f"{FORM}; boundary={'b' * 5000}"}, b"x", 400, "form cannot be read"),
        (BOUNDARY, b"", 400, "ends before its last boundary"),
        (BOUNDARY, b"x", 400, "form cannot be read"),
        (BOUNDARY, b"--b--\r\n", 422, "'image' is missing"),
        (BOUNDARY, b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", 400, '"name" must be provided'),
        (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\na', 400, "last boundary"),
        (BOUNDARY, b"--b\r\nX-Long: " + b"x" * 10_000_000, 400, "form cannot be read"),
        ({**BOUNDARY, "content-length": "many"}, b"--b--\r\n", 400, "Content-Length is no number"),
        ({**BOUNDARY, "content-length": "-1"}, b"--b--\r\n", 400, "Content-Length is no number"),
        ({**BOUNDARY, "content-length": "9" * 5000}, b"--b--\r\n", 413, "larger than 64 MB"),
        ({**BOUNDARY, "content-encoding": "gzip"}, b"--b--\r\n", 415, "Content-Encoding"),
    ],
)  # fmt: skip
def test_bodies_that_are_none_are_refused(
    headers: dict[str, str], content: bytes, status: int, words: str, client: TestClient
) -> None:
    refused(client.post("/inpaint", content=content, headers=headers), status, words)


def test_a_thousand_parts_are_refused(client: TestClient) -> None:
    files = [("image", (f"{n}.png", PICTURE)) for n in range(1000)]
    refused(client.post("/inpaint", files=files), 400, "Too many files")


def test_bodies_are_bounded_to_the_byte_with_or_without_their_length(folder: Path) -> None:
    body = b"".join(
        (b'--b\r\nContent-Disposition: form-data; name="%s"; filename="x"\r\n\r\n%s\r\n' % part)
        for part in ((b"image", PICTURE), (b"mask", HOLE))
    ) + b"--b--\r\n"  # fmt: skip

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    for limit, status in ((len(body), 200), (len(body) - 1, 413)):
        with client_of(make_parts(folder, max_body_bytes=limit)) as client:
            for content in (body, chunks()):
                answer = client.post("/inpaint", content=content, headers=BOUNDARY)
                assert answer.status_code == status
            longest = limit // 4 * 4 - len('{"image":""}')
            assert client.post("/inpaint", json={"image": "A" * longest}).status_code == 415
            assert client.post("/inpaint", json={"image": "A" * (longest + 4)}).status_code == 413


def test_pictures_are_bounded_to_the_pixel(folder: Path) -> None:
    for limit, status in ((40 * 48, 200), (40 * 48 - 1, 413)):
        with client_of(make_parts(folder, max_pixels=limit)) as client:
            for kind in ("PNG", "JPEG", "WEBP"):
                assert post(client, encoded(kind), HOLE).status_code == status
            assert client.get("/model").json()["limits"]["max_pixels"] == limit


def test_paths_and_methods_that_are_not_served_are_problems(client: TestClient) -> None:
    for path in ("/inpain", "/docs.json", "/static_content/x", "/../etc/passwd", "/%00", "/" + "x" * 5000):
        refused(client.get(path), 404, "is not served")
    for method, path in (
        ("GET", "/inpaint"),
        ("DELETE", "/model"),
        ("POST", "/livez"),
        ("TRACE", "/"),
        ("PUT", "/metrics"),
    ):
        answer = client.request(method, path)
        refused(answer, 405, f"{method} {path} is not served; POST /inpaint or GET /model")
        assert answer.headers["allow"]


def test_a_full_queue_and_deadlines_are_problems_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = make_parts(folder, timeout_seconds=0.3)
    with client_of(parts) as client:
        raised: Exception = Busy(retry_after=7)

        def refuse(pixels: int) -> None:
            raise raised

        monkeypatch.setattr(parts.admission, "slot", refuse)
        answer = post(client, PICTURE, HOLE)
        refused(answer, 429, "try again in 7 s")
        assert answer.headers["retry-after"] == "7"
        raised = Overdue()
        refused(post(client, PICTURE, HOLE), 504, "try again")
        raised = RuntimeError("secret")
        answer = post(client, PICTURE, HOLE)
        refused(answer, 500, answer.headers["x-request-id"])
        assert "secret" not in answer.text
        monkeypatch.undo()
        monkeypatch.setattr(serving_app, "repair", lambda *args: time.sleep(0.6))
        refused(post(client, PICTURE, HOLE), 504, "not answered within 0.3 s")
        assert parts.admission.running == 1  # the thread goes on
        while parts.admission.running:
            time.sleep(0.01)


def test_the_repair_ends_with_the_client_that_wanted_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = make_parts(folder)
    app = serving_app.build_app(parts)
    body = json.dumps({n: base64.b64encode(c).decode() for n, c in (("image", PICTURE), ("mask", HOLE))}).encode()
    begun, ended, sent = threading.Event(), threading.Event(), []

    def slow(image: Bytes, mask: Bytes, wanted: Callable[[], bool]) -> Bytes:
        begun.set()
        while wanted():
            time.sleep(0.01)
        ended.set()
        return image

    monkeypatch.setattr(parts.models.current.model, "inpaint", slow)
    scope = {
        "type": "http", "method": "POST", "path": "/inpaint", "query_string": b"", "app": app,
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip

    async def ask() -> None:
        messages: list[dict[str, object]] = [{"type": "http.request", "body": body}]

        async def receive() -> dict[str, object]:
            if messages:
                return messages.pop()
            while not begun.is_set():
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        await asyncio.wait_for(app(scope, receive, send), 20)  # type: ignore[arg-type]
        while parts.admission.running:
            await asyncio.sleep(0.01)

    asyncio.run(ask())
    assert not sent and ended.is_set()
    assert b'kintsugi_requests_total{path="/inpaint",status="499"} 1.0' in parts.metrics.render()
