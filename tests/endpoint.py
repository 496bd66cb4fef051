"""A stand-in for the endpoint at the edge of the network: answers from a script, and remembers what it was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler
from typing import Any

from components.inpainting.images import decode_image, encode_png
from tests.loopback import serve_http


@dataclass
class Answer:
    """One answer; ``None`` for a body inverts the picture."""

    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def problem(cls, status: int, detail: str, **headers: str) -> Answer:
        """An answer with problem details."""
        body = json.dumps({"status": status, "detail": detail, "request_id": "r1"}).encode()
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, body, {"Content-Type": "application/problem+json", **told})


class Endpoint:
    """What was asked of it, and what it is to answer: ``script``, and after that inverted pictures."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.requests: list[dict[str, Any]] = []
        self.url = ""

    def answer(self, parts: dict[str, bytes], headers: dict[str, str]) -> Answer:
        self.requests.append({"parts": parts, "headers": headers})
        answer = self.script.pop(0) if self.script else Answer()
        if answer.body is None:
            answer.body = encode_png(255 - decode_image(parts["image"]))
            source = "given" if "mask" in parts else "found"
            answer.headers = {"Content-Type": "image/png", "X-Model-Version": "7", "X-Mask-Source": source}
        return answer


@contextmanager
def run_endpoint() -> Iterator[Endpoint]:
    """Answer on a free port of this machine."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(endpoint.answer(_parts(self.headers["Content-Type"], body), dict(self.headers)))

        def do_GET(self) -> None:
            self._send(Answer(200, b'{"version": "7"}', {"Content-Type": "application/json"}))

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body or b"")

    with serve_http(Handler) as host:
        endpoint.url = f"http://{host}"
        yield endpoint


def _parts(content_type: str, body: bytes) -> dict[str, bytes]:
    message = BytesParser().parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parts: Any = message.get_payload()
    return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
