"""What is served is replaced while it serves, and only by what was checked."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.inpainting.images import decode_image, encode_png
from serving.models import ModelError, Models, Served
from tests.served import FlatEngine, client_of, make_parts, post, white, write_model

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
MASK = np.zeros((40, 48), np.uint8)
MASK[5:9, 5:20] = 1


def offer(watched: Path, model: Any, blind: Any = "") -> None:
    """Name other models, as whoever fills the folder does: written beside and renamed."""
    draft = watched / "current.draft"
    draft.write_text(json.dumps({"model": model, "blind": blind}))
    os.replace(draft, watched / "current.json")


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    write_model(tmp_path / "watched" / "two", "2", 0.25)
    return tmp_path / "watched"


@pytest.fixture
def bento(tmp_path: Path) -> Path:
    write_model(tmp_path / "bento" / "model", "1", 0.5)
    return tmp_path / "bento"


def test_a_model_that_is_offered_takes_over(bento: Path, watched: Path) -> None:
    parts = make_parts(bento, models=watched)
    with client_of(parts) as client:
        assert client.get("/model").json()["version"] == "1"
        assert not parts.models.refresh()
        offer(watched, "two")
        assert parts.models.refresh() and not parts.models.refresh()
        served = client.get("/model").json()
        assert (served["version"], served["last_refused"]) == ("2", None)
        answer = post(client, encode_png(IMAGE), white(MASK))
        assert answer.headers["x-model-version"] == "2"
        assert (decode_image(answer.content)[MASK == 1] == 64).all()
        assert "kintsugi_model_switches_total 1.0" in client.get("/metrics").text


def test_the_watched_folder_alone_is_enough_and_nothing_at_all_is_not(watched: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model to serve"):
        Models(tmp_path, watched)
    offer(watched, "two")
    assert Models(tmp_path, watched).current.model.provenance["version"] == "2"


def test_a_bento_whose_model_was_changed_does_not_start(bento: Path) -> None:
    with (bento / "model" / "generator.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match="another digest"):
        Models(bento)


def spoil(watched: Path, how: str) -> Any:
    """Make a bad offer of this kind; returns the name that is offered."""
    folder = write_model(watched / "bad", "9", float("nan") if how == "no number" else 0.9)
    onnx, provenance = folder / "generator.onnx", folder / "provenance.json"
    if how == "another digest":
        onnx.write_bytes(onnx.read_bytes()[:-1] + b"x")
    elif how == "holds no":
        onnx.unlink()
    elif how == "no digest":
        provenance.write_text(json.dumps({"stride": 4}))
    elif how == "JSONDecodeError":
        provenance.write_text("{")
    elif how == "Fail":  # what ONNX Runtime says of it
        folder.joinpath("provenance.json").unlink()
        onnx.unlink()
        folder.rmdir()
        import hashlib

        write_model(folder, "9", engine_sha256=hashlib.sha256(b"no model").hexdigest())
        onnx.write_bytes(b"no model")
    return {"no folder": "../bento/model", "names no model": "", "is no folder": ["bad"]}.get(how, "bad")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("another digest", "bad/generator.onnx has another digest than its provenance says"),
        ("no digest", "another digest"),
        ("holds no", "bad holds no generator.onnx"),
        ("JSONDecodeError", "JSONDecodeError"),
        ("Fail", "generator.onnx"),
        ("no number", "what is no number"),
        ("no folder", "'../bento/model', which is no folder beside it"),
        ("is no folder", "which is no folder beside it"),
        ("names no model", "names no model"),
    ],
)
def test_a_bad_model_is_refused_and_the_old_one_stays(how: str, reason: str, bento: Path, watched: Path) -> None:
    parts = make_parts(bento, models=watched)
    with client_of(parts) as client:
        offer(watched, spoil(watched, how))
        assert not parts.models.refresh() and not parts.models.refresh()
        served = client.get("/model").json()
        assert served["version"] == "1"
        assert reason in served["last_refused"]["reason"]
        assert served["last_refused"]["at"]
        assert "kintsugi_model_refused_total 1.0" in client.get("/metrics").text
        assert post(client, encode_png(IMAGE), white(MASK)).status_code == 200
        offer(watched, "two")
        assert parts.models.refresh()
        assert client.get("/model").json()["version"] == "2"


def test_a_model_that_cannot_find_damage_is_no_blind_model(bento: Path, watched: Path) -> None:
    write_model(watched / "blind", "3")
    models = Models(bento, watched)
    offer(watched, "two", "blind")
    assert not models.refresh()
    assert models.last_refused is not None and "repair without a mask, and cannot" in models.last_refused.reason


def test_requests_in_flight_end_on_the_model_they_began_with(bento: Path, watched: Path) -> None:
    models = Models(bento, watched)
    closed = []
    models.current.blind = FlatEngine()
    models.current.blind.close = lambda: closed.append("blind")  # type: ignore[method-assign]
    with models.use() as first, models.use() as second:
        offer(watched, "two")
        assert models.refresh()
        assert first is second
        assert first.model.provenance["version"] == "1" and not closed
        assert (first.model.inpaint(IMAGE, MASK)[MASK == 1] == 128).all()
        with models.use() as third:
            assert third.model.provenance["version"] == "2"
    assert closed == ["blind"]


def test_no_request_fails_while_models_are_switched(bento: Path, watched: Path) -> None:
    write_model(watched / "three", "3", 0.75)
    parts = make_parts(bento, models=watched)
    greys = {"1": 128, "2": 64, "3": 191}
    seen: set[str] = set()
    wrong: list[object] = []
    stop = threading.Event()
    with client_of(parts) as client:

        def ask() -> None:
            while not stop.is_set():
                answer = post(client, encode_png(IMAGE), white(MASK))
                version = answer.headers["x-model-version"]
                seen.add(version)
                if answer.status_code != 200 or (decode_image(answer.content)[MASK == 1] != greys[version]).any():
                    wrong.append(answer)

        let_in = parts.admission.concurrent + parts.admission.queue
        threads = [threading.Thread(target=ask) for _ in range(let_in)]
        for thread in threads:
            thread.start()
        for number in range(12):
            offer(watched, ("two", "three")[number % 2])
            assert parts.models.refresh()
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert seen >= {"2", "3"}


def test_the_folder_is_watched_by_itself(bento: Path, watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.models.POLL_SECONDS", 0.01)
    switched = threading.Event()

    def see(served: Served) -> None:
        if served.model.provenance["version"] == "2":
            switched.set()

    models = Models(bento, watched, see)
    models.watch()
    offer(watched, "two")
    assert switched.wait(20)
    models.close()
