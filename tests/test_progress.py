from __future__ import annotations

import errno
import io
import json
import re
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException
from rich.console import Console

from components.progress import PREFIX, explain, say, step, track
from pipelines.events import EventStream


def events(output: str) -> list[dict[str, object]]:
    return [json.loads(line.removeprefix(PREFIX)) for line in output.splitlines()]


def test_plain_lines_without_events(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINTSUGI_EVENTS", raising=False)
    assert list(track(range(20), "work", 20)) == list(range(20))
    say("done")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["work: 20/20", "done"]
    assert len(lines) == 6


def test_a_step_announces_itself_and_says_why_it_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINTSUGI_EVENTS", "1")

    @step("mend")
    def fail() -> None:
        raise ValueError("the glue is\n dry; warm it")

    with pytest.raises(ValueError, match="glue"):
        fail()
    assert events(capsys.readouterr().out) == [
        {"event": "start", "step": "mend"},
        {"event": "error", "step": "mend", "text": "the glue is dry; warm it"},
    ]


def test_an_interrupted_step_ends_without_a_traceback() -> None:
    @step("mend")
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        stop()
    assert ended.value.code == 130


def test_system_errors_say_what_to_do() -> None:
    assert "free some" in explain(OSError(errno.ENOSPC, "No space left on device"))
    assert "/etc/x" in explain(PermissionError(errno.EACCES, "denied", "/etc/x"))


def test_a_server_that_is_away_is_named_and_not_its_stack() -> None:
    for address, why in (("127.0.0.1:1", "Connection refused"), ("nowhere.invalid:80", r"[\w ]+")):
        with pytest.raises(requests.ConnectionError) as caught:
            requests.get(f"http://{address}/api?filter=long", timeout=5)
        told = explain(MlflowException(f"API request to http://{address}/api failed with exception {caught.value}"))
        assert re.fullmatch(rf"{address} cannot be reached \({why}\); check the address, and that it is up", told)


def test_stream_shows_events_and_logs_everything(tmp_path: Path) -> None:
    shown = io.StringIO()
    with EventStream(Console(file=shown), tmp_path / "log.txt") as stream:
        for text in (
            "    ", PREFIX + '{"event": "start", "step": "train"}\n', "noise\n",
            PREFIX + '{"event": "line", "te', 'xt": "[D loss: 1.0]"}\n',
            PREFIX + '{"event": "progress", "label": "train", "done": 1, "total": 2}\n',
            PREFIX + '{"event": "progress", "label": "train", "done": 2, "total": 2}\n',
            PREFIX + '{"event": "error", "step": "train", "text": "no"}\n',
        ):  # fmt: skip
            stream.write(text)
        assert stream.error == "train: no"
    assert "train" in shown.getvalue()
    assert "[D loss: 1.0]" in shown.getvalue()
    assert "noise" not in shown.getvalue()
    assert "noise" in (tmp_path / "log.txt").read_text()
