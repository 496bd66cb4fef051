"""Who is told how a run ended: a webhook and the Kubeflow API are small servers on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from components import cluster
from components.config import Settings
from components.notify import notify, telling
from tests.loopback import serve_http

RUN = "0b7d"


class Listener:
    """Takes what is posted, and answers for runs."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.tasks: list[dict[str, Any]] = []
        self.status = 200
        self.url = ""


@pytest.fixture
def listener() -> Iterator[Listener]:
    heard = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            assert self.headers["Content-Type"] == "application/json"
            self._send({}, heard.status)

        def do_GET(self) -> None:
            heard.tokens.append(self.headers.get("Authorization", ""))
            known = self.path == f"/apis/v2beta1/runs/{RUN}"
            self._send({"run_id": RUN, "run_details": {"task_details": heard.tasks}}, 200 if known else 404)

        def _send(self, content: dict[str, Any], status: int) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

    with serve_http(Handler) as host:
        heard.url = f"http://{host}"
        yield heard


def asked(listener: Listener, **changes: Any) -> Settings:
    return Settings(kubeflow_api=listener.url, kubeflow_url="https://kubeflow.example/", **changes)


def task(name: str, state: str, message: str = "", end: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"display_name": name, "state": state, "end_time": end}
    return found | ({"error": {"code": 2, "message": message}} if message else {})


def test_a_failed_run_names_the_step_the_reason_and_the_page(listener: Listener) -> None:
    listener.tasks = [
        task("plan", "SUCCEEDED"),
        task("train-and-decide", "FAILED", end="2026-11-26T10:05:00Z"),
        task("train", "FAILED", "the loss\nis no number", "2026-11-26T10:04:00Z"),
    ]
    notify("FAILED", listener.url, RUN, asked(listener))
    (told,) = listener.got
    assert (told["succeeded"], told["step"], told["why"]) == (False, "train", "the loss is no number")
    assert told["link"] == f"https://kubeflow.example/#/runs/details/{RUN}"
    assert told["text"] == f"Kintsugi <{told['link']}|run {RUN}> failed in train: the loss is no number"


@pytest.mark.parametrize("state", ["RUNNING", "SUCCEEDED"])
def test_a_run_that_is_still_running_when_its_exit_task_starts_went_well(state: str, listener: Listener) -> None:
    notify(state, listener.url, RUN, asked(listener))
    listener.tasks = [task("promote", "SUCCEEDED")]
    notify(state, listener.url, RUN, asked(listener))
    assert [told["promoted"] for told in listener.got] == [False, True]
    assert [told["text"].rpartition(", ")[2] for told in listener.got] == [
        "and the model was not promoted", "and the model is champion now",
    ]  # fmt: skip


def test_the_settings_name_a_webhook_where_the_form_does_not(listener: Listener) -> None:
    notify("SUCCEEDED", "", RUN, asked(listener, webhook=listener.url))
    assert len(listener.got) == 1
    notify("SUCCEEDED", "", RUN, asked(listener))
    assert len(listener.got) == 1


def test_a_pod_shows_the_api_its_token(listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_ACCOUNT", tmp_path)
    (tmp_path / "token").write_text("secret\n")
    notify("FAILED", listener.url, RUN, asked(listener))
    assert listener.tokens == ["Bearer secret"]


def test_nobody_who_does_not_answer_fails_a_run(listener: Listener, capsys: pytest.CaptureFixture[str]) -> None:
    notify("FAILED", "http://127.0.0.1:1/hook", RUN, Settings(kubeflow_api="http://127.0.0.1:1"))
    assert "127.0.0.1 was not told" in capsys.readouterr().out
    notify("FAILED", listener.url, RUN, Settings(kubeflow_api="http://127.0.0.1:1"))
    assert "the API at http://127.0.0.1:1 did not tell it" in listener.got[0]["text"]
    listener.status = 500
    notify("FAILED", listener.url, "unknown", asked(listener))
    assert "was not told" in capsys.readouterr().out


def test_a_secret_address_is_never_printed(listener: Listener, capsys: pytest.CaptureFixture[str]) -> None:
    notify("SUCCEEDED", f"{listener.url}/services/secret", RUN, asked(listener))
    notify("SUCCEEDED", "http://127.0.0.1:1/services/secret", RUN, asked(listener))
    assert "secret" not in capsys.readouterr().out


def test_a_step_before_the_exit_handler_tells_of_its_own_failure(listener: Listener) -> None:
    settings = asked(listener)
    with pytest.raises(ValueError, match="no such folder"), telling("ingest", listener.url, RUN, settings):
        raise ValueError("no such folder")
    assert listener.got[0]["step"] == "ingest" and listener.got[0]["why"] == "no such folder"
    with telling("ingest", listener.url, RUN, settings):
        pass
    with pytest.raises(ValueError, match="again"), telling("ingest", "", RUN, settings):
        raise ValueError("again")
    assert len(listener.got) == 1
