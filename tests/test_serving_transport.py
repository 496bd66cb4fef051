"""The server as it runs in production, in a process of its own: what only a real connection shows."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bentoml
import httpx
import numpy as np
import pytest

from components.bentos import free_port
from components.inpainting.images import decode_image, encode_png
from tests.served import white, write_model

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
MASK = np.zeros((40, 48), np.uint8)
MASK[5:9, 5:20] = 1
FILES = {"image": ("i.png", encode_png(IMAGE)), "mask": ("m.png", white(MASK))}
LIMIT = 200_000


@dataclass
class Server:
    """A server that runs: where it listens, the folder of models that it watches, what it logs."""

    port: int
    watched: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lines(self) -> list[dict[str, object]]:
        """Its log, but for what BentoML's own processes say before the service starts."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    watched = folder / "models"
    write_model(watched / "one", "1", 0.5)
    (watched / "current.json").write_text('{"model": "one", "blind": ""}')
    running = Server(free_port(), watched, folder / "log")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KINTSUGI_")} | {
        "BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", "KINTSUGI_MODELS": str(watched),
        "KINTSUGI_MAX_BODY_BYTES": str(LIMIT),
    }  # fmt: skip
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:KintsugiService", "--host", "127.0.0.1"]
    with running.log.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(running.port)], env=environment, stdout=log, stderr=subprocess.STDOUT,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{running.url}/readyz").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        else:
            pytest.fail(running.log.read_text())
        yield running
    finally:
        process.terminate()
        process.wait(30)


def exchange(server: Server, request: bytes, *, close: bool = False) -> bytes:
    """What the server answers to these bytes; ``close``: they are followed by the end of the stream."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request)
        if close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while not (b"\r\n\r\n" in answer and answer.rstrip().endswith(b"}")):
            received = connection.recv(65536)
            if not received:
                break
            answer += received
        return answer


def post_head(*headers: str) -> bytes:
    lines = ("POST /inpaint HTTP/1.1", "Host: x", "Content-Type: multipart/form-data; boundary=b", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_everything_that_is_answered_is_ours(server: Server) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/model", "/openapi.json"):
        assert httpx.get(server.url + path).status_code == 200
    for path in ("/docs.json", "/static_content/index.html", "/x"):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    for path in ("/livez", "/schema.json", "/model"):
        assert httpx.put(server.url + path).headers["content-type"] == "application/problem+json"
    answer = httpx.post(server.url + "/inpaint", files=FILES)
    assert (decode_image(answer.content)[MASK == 1] == 128).all()
    assert "kintsugi_stage_seconds_bucket" in httpx.get(server.url + "/metrics").text


def test_bentomls_own_client_works(server: Server, tmp_path: Path) -> None:
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    image.write_bytes(FILES["image"][1])
    mask.write_bytes(FILES["mask"][1])
    with bentoml.SyncHTTPClient(server.url) as client:
        repaired = client.inpaint(image=image, mask=mask)
        assert (decode_image(Path(repaired).read_bytes())[MASK == 1] == 128).all()
        grown = client.inpaint(image=image, mask=mask, format="webp", grow_mask=2)
        assert (decode_image(Path(grown).read_bytes()) == 128).all(axis=2).sum() == 8 * 19
        with pytest.raises(bentoml.exceptions.BentoMLException, match="Send a mask"):
            client.inpaint(image=image)


def test_lengths_that_lie_end_in_a_4xx_and_hurt_nobody(server: Server) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    too_long = exchange(server, post_head("Content-Length: 5000") + part, close=True)
    assert too_long == b"" or b" 400 " in too_long.splitlines()[0]
    too_short = exchange(server, post_head("Content-Length: 20") + part)
    assert b" 400 " in too_short.splitlines()[0]  # what is left over is no HTTP, which the transport says itself
    chunk = f"{len(part) + 100_000:x}\r\n".encode() + part + b"x" * 100_000 + b"\r\n"
    endless = exchange(server, post_head("Transfer-Encoding: chunked") + chunk * 3)
    assert b" 413 " in endless.splitlines()[0] and b"problem+json" in endless
    announced = exchange(server, post_head(f"Content-Length: {LIMIT + 1}"))
    assert b" 413 " in announced.splitlines()[0]
    for nonsense in ("Content-Length: many", "Content-Length: -5", "Content-Length: 5\r\nContent-Length: 6"):
        assert b" 400 " in exchange(server, post_head(nonsense) + b"xxxxx").splitlines()[0]
    assert httpx.post(server.url + "/inpaint", files=FILES).status_code == 200


def test_a_text_where_a_file_belongs_makes_no_connection(server: Server) -> None:
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.5)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/x.png"
        for request in ({"files": {"image": (None, url)}}, {"json": {"image": url}}, {"data": {"image": url}}):
            assert httpx.post(server.url + "/inpaint", **request).status_code in (415, 422)
        with pytest.raises(TimeoutError):
            trap.accept()


def test_a_pickle_is_not_read(server: Server, tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    headers = {"content-type": "application/vnd.bentoml+pickle"}
    assert httpx.post(server.url + "/inpaint", content=pickle.dumps(Bomb()), headers=headers).status_code == 415
    assert not (tmp_path / "made").exists()


def test_a_model_that_appears_takes_over_by_itself(server: Server) -> None:
    write_model(server.watched / "two", "2", 0.25)
    (server.watched / "draft").write_text('{"model": "two", "blind": ""}')
    os.replace(server.watched / "draft", server.watched / "current.json")
    versions = set()
    for _ in range(200):
        answer = httpx.post(server.url + "/inpaint", files=FILES)
        assert answer.status_code == 200
        versions.add(answer.headers["x-model-version"])
        if "2" in versions:
            break
        time.sleep(0.05)
    assert "2" in versions
    assert 'kintsugi_model_info{digest="0002' in httpx.get(server.url + "/metrics").text


def test_the_log_is_json_and_names_every_request(server: Server) -> None:
    httpx.post(server.url + "/inpaint", files=FILES, headers={"x-request-id": "look-for-me"})
    for _ in range(100):
        found = [line for line in server.lines() if line.get("request_id") == "look-for-me"]
        if found:
            break
        time.sleep(0.05)
    assert [line["event"] for line in found] == ["request"]
    assert found[0]["status"] == 200 and found[0]["width"] == 48
    assert not any("bentoml.access" in str(line) for line in server.lines())
