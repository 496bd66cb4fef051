"""A receiver of MLflow's webhook ``model_version_alias.created``: says when a registered model has a new champion.

    WEBHOOK_SECRET=... python docs/alias_receiver.py [--port 8080] [--state alias.json]

An example to build on, standard library alone; ``docs/operations.md`` says how MLflow is told of it. What is not signed
with the secret, or was signed more than five minutes ago, is answered 401. MLflow sends again what was not answered,
and Kintsugi's registry sets the alias again where a step is retried; so what was acted on last is kept, per model
and alias, the same news twice is acted on once, and news that were overtaken are not. An alias that somebody moved by
hand is news to MLflow and nothing to Kintsugi: ask ``kintsugi models`` who is champion. Put HTTPS in front of it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

_OLDEST = 300  # seconds
_LONGEST = 100_000  # bytes


def signed(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """What MLflow writes in ``X-MLflow-Signature``."""
    content = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), content, hashlib.sha256).digest()).decode()


def genuine(secret: str, delivery: str, timestamp: str, body: bytes, signature: str) -> bool:
    """Whether MLflow sent this, and lately. Compares in constant time."""
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > _OLDEST:
        return False
    return hmac.compare_digest(signed(secret, delivery, timestamp, body).encode(), signature.encode())


def is_news(state: Path, body: bytes) -> bool:
    """Whether the alias points elsewhere than by the newest news so far, which ``state`` remembers."""
    news = json.loads(body)
    data, at = news["data"], datetime.fromisoformat(news["timestamp"])
    alias, version = f"{data['name']}@{data['alias']}", str(data["version"])
    known = json.loads(state.read_text()) if state.exists() else {}
    last = known.get(alias, {"version": "", "at": at.isoformat()})
    if last["version"] == version or at < datetime.fromisoformat(last["at"]):  # told again, or late
        return False
    print(f"{alias} is version {version} now", flush=True)  # act here
    draft = state.with_name(f"{state.name}.part")
    draft.write_text(json.dumps(known | {alias: {"version": version, "at": at.isoformat()}}))
    draft.replace(state)
    return True


class Receiver(BaseHTTPRequestHandler):
    """Answers 200 to what it acted on or knew, 401 to what is not MLflow's, 400 to what is no such news."""

    secret = ""
    state = Path("alias.json")
    timeout = 10

    def do_POST(self) -> None:
        """Check who sent it, then act on it."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LONGEST:
            return self._answer(400)
        names = ("X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature")
        delivery, timestamp, signature = (self.headers.get(name, "") for name in names)
        body = self.rfile.read(int(length))
        if not genuine(self.secret, delivery, timestamp, body, signature):
            return self._answer(401)
        try:
            is_news(self.state, body)
        except (ValueError, KeyError, TypeError):
            return self._answer(400)
        return self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    """Serve on this machine's loopback address until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--state", type=Path, default=Receiver.state)
    arguments = parser.parse_args()
    Receiver.secret, Receiver.state = os.environ.get("WEBHOOK_SECRET", ""), arguments.state
    if not Receiver.secret:
        parser.error("set WEBHOOK_SECRET to the secret that the webhook was made with")
    HTTPServer(("127.0.0.1", arguments.port), Receiver).serve_forever()


if __name__ == "__main__":
    main()
