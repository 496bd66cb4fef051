"""What a pod does at the cluster's API, played by a small server on loopback."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components import cluster
from components.cluster import ClusterError, ensure_volume

CLAIMS = "/api/v1/namespaces/team/persistentvolumeclaims"


class Cluster:
    """Volume claims by name; what it answers to looking and to making."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.look, self.make = 0, 0  # a status to refuse with; 0: as asked
        self.tokens: set[str] = set()


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """This process as a pod of the namespace ``team``."""
    played = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            played.tokens.add(self.headers["Authorization"])
            name = self.path.removeprefix(f"{CLAIMS}/")
            found = played.claims.get(name)
            self._send(played.look or (200 if found else 404), found or {"reason": "NotFound"})

        def do_POST(self) -> None:
            claim = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == CLAIMS
            if not played.make:
                played.claims[claim["metadata"]["name"]] = claim
            self._send(played.make or 201, claim)

        def log_message(self, *_: object) -> None: ...

        def _send(self, status: int, content: Any) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key", "-days", "2",
         "-out", tmp_path / "ca.crt", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "token").write_text("secret")
    (tmp_path / "namespace").write_text("team")
    monkeypatch.setattr(cluster, "_ACCOUNT", tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
        yield played
        server.shutdown()


def test_outside_of_a_cluster_nothing_is_asked() -> None:
    assert ensure_volume("kintsugi") == ""


def test_a_missing_volume_claim_is_made_once(pod: Cluster) -> None:
    assert ensure_volume("kintsugi") == "State goes to the volume claim kintsugi, made now with 20Gi."
    assert pod.claims["kintsugi"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert ensure_volume("kintsugi") == "State goes to the volume claim kintsugi."
    assert pod.tokens == {"bearer secret"}


def test_another_run_may_make_it_at_the_same_moment(pod: Cluster) -> None:
    pod.make = 409
    assert "made now" in ensure_volume("kintsugi")


def test_who_may_not_make_it_is_told_what_to_do(pod: Cluster) -> None:
    pod.make = 403
    with pytest.raises(ClusterError, match=r"no volume claim 'kintsugi' in namespace team.*name another as run_volume"):
        ensure_volume("kintsugi")


def test_who_may_not_look_goes_on(pod: Cluster) -> None:
    pod.look = 403
    assert "may not look at" in ensure_volume("kintsugi")
    pod.look = 500
    with pytest.raises(ClusterError, match="does not tell whether"):
        ensure_volume("kintsugi")


def test_a_cluster_that_does_not_answer_is_one_sentence(pod: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(ClusterError, match="the cluster's API does not answer"):
        ensure_volume("kintsugi")
