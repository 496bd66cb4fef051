"""The folder of models follows the registry, and nothing that was tampered with gets into it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient

from components.config import RunConfig, ServeConfig, Settings, TrainConfig
from components.manifest import Manifest
from components.tracking import Registry, open_run, start_run
from pipelines.follow import CURRENT, Follower, read_current
from tests.conftest import Kintsugi
from tests.registered import servable

CONFIG = ServeConfig(model_name="mender")


def promote(settings: Settings, name: str, content: bytes) -> str:
    """Make a version champion whose engine is ``content``; returns its run."""
    manifest = Manifest(kind="dataset", digest="d" * 64, code_version="", facts={"source": "sample"})
    with start_run(settings, RunConfig(), TrainConfig(), manifest) as run:
        pass
    files = settings.state.with_name("files")
    files.mkdir(exist_ok=True)
    (files / "generator.onnx").write_bytes(content)
    (files / "provenance.json").write_text(json.dumps({"name": name}))
    logged = open_run(settings, run.id)
    packaged = [files / "generator.onnx", files / "provenance.json"]
    for file in packaged:
        logged.log_file(file, "bento/1")
    registry = Registry(settings, name)
    champion = registry.champion()
    tags = servable(champion.number if champion else "")
    version = registry.register(run.id, {"digest": hashlib.sha256(content).hexdigest()} | tags)
    registry.record(version.number, {f"bento/1/{file.name}": file for file in packaged})
    registry.promote(version.number)
    return run.id


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def follower(settings: Settings, folder: Path, said: list[str]) -> Follower:
    return Follower(settings, CONFIG, folder, said.append)


def served(folder: Path, which: str = "model") -> bytes:
    name = read_current(folder)[which]
    return (folder / name / "generator.onnx").read_bytes() if name else b""


def test_the_champion_is_fetched_and_followed_and_the_two_newest_are_kept(
    settings: Settings, follower: Follower, folder: Path, said: list[str]
) -> None:
    assert follower.look()
    assert said == ["no model was promoted yet as 'mender'; waiting for one"]
    assert not (folder / CURRENT).exists()
    for content in (b"first", b"second", b"third"):
        promote(settings, "mender", content)
        assert follower.look() and follower.look()
        assert served(folder) == content
        assert json.loads((folder / read_current(folder)["model"] / "provenance.json").read_text()) == {
            "name": "mender"
        }
    left = sorted(path.name.split("-")[1] for path in folder.iterdir() if path.is_dir())
    assert left == ["v2", "v3"]
    assert len(said) == 4 and said[-1].startswith("current: mender-v3-")
    Registry(settings, "mender").rollback("1", "3")
    assert follower.look()
    assert served(folder) == b"first"


def test_a_blind_model_comes_along_where_it_has_a_champion(
    settings: Settings, folder: Path, follower: Follower
) -> None:
    promote(settings, "mender", b"first")
    follower.look()
    assert read_current(folder)["blind"] == ""
    promote(settings, "mender-blind", b"finder")
    follower.look()
    assert (served(folder), served(folder, "blind")) == (b"first", b"finder")
    Follower(settings, ServeConfig(model_name="mender", blind_model="none"), folder, print).look()
    assert read_current(folder)["blind"] == ""


@pytest.mark.parametrize("file", ["bento/1/generator.onnx", "bento/1/provenance.json"])
def test_a_tampered_model_is_refused_and_the_one_before_stays(
    file: str, settings: Settings, follower: Follower, folder: Path, said: list[str]
) -> None:
    promote(settings, "mender", b"first")
    follower.look()
    run = promote(settings, "mender", b"second")
    artifacts = MlflowClient(settings.mlflow_uri).get_run(run).info.artifact_uri
    (Path(str(artifacts).removeprefix("file://")) / file).write_bytes(b'{"evil": true}')
    assert not follower.look() and not follower.look()
    assert served(folder) == b"first"
    assert len(said) == 2
    assert "version 2 of 'mender' is refused: its" in said[1] and "roll back" in said[1]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_refused_blind_model_does_not_hold_up_the_other(settings: Settings, follower: Follower, folder: Path) -> None:
    promote(settings, "mender", b"first")
    promote(settings, "mender-blind", b"finder")
    Registry(settings, "mender-blind").tag("1", {"verified": ""})
    assert follower.look()
    assert served(folder) == b"first"
    assert read_current(folder)["blind"] == ""


def test_a_champion_is_taken_once_it_is_verified(
    settings: Settings, follower: Follower, folder: Path, said: list[str]
) -> None:
    promote(settings, "mender", b"first")
    Registry(settings, "mender").tag("1", {"verified": ""})
    assert not follower.look()
    assert "version 1 of 'mender', the champion, was not verified since it was packaged" in said[-1]
    assert read_current(folder)["model"] == ""
    Registry(settings, "mender").verified("1", "kintsugi:1", alike=True)
    assert follower.look()
    assert served(folder) == b"first"


def test_mlflow_away_is_said_once_and_what_is_there_stays(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(settings, "mender", b"first")
    Follower(settings, CONFIG, folder, print).look()
    away = Settings(home=settings.home, MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    said: list[str] = []
    follower = Follower(away, CONFIG, folder, said.append)
    assert not follower.look() and not follower.look()
    assert served(folder) == b"first"
    assert len(said) == 1
    assert said[0].startswith("not in step with the registry: ") and "mender-v1-" in said[0]
    assert said[0].endswith(" stays")


def test_what_a_killed_follower_left_is_swept(settings: Settings, follower: Follower, folder: Path) -> None:
    promote(settings, "mender", b"first")
    (folder / ".incoming-x").mkdir(parents=True)
    follower.look()
    assert not (folder / ".incoming-x").exists()


def test_the_verb_looks_once(settings: Settings, folder: Path, kintsugi: Kintsugi) -> None:
    promote(settings, "mender", b"first")
    options = ("--model-name", "mender", "-o", str(folder), "--once")
    result = kintsugi("follow", *options, home=settings.home)
    assert result.returncode == 0, result.stderr
    assert "follow: current: mender-v1-" in result.stdout
    assert served(folder) == b"first"


@pytest.fixture
def parent(settings: Settings, folder: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """A process that starts a follower, as ``kintsugi serve`` does, and then waits, as the server it becomes would."""
    code = (
        "import sys; from components.config import ServeConfig, Settings; from pipelines import follow; "
        "follow.start_follower(Settings(), ServeConfig(model_name='mender'), 0.2); sys.stdin.read()"
    )
    started = []

    def start() -> subprocess.Popen[str]:
        environment = os.environ | {"KINTSUGI_HOME": str(settings.home)}
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_true(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_server_is_followed_as_long_as_it_lives(
    settings: Settings, parent: Callable[[], subprocess.Popen[str]]
) -> None:
    """Even where it is killed outright; and a promotion meanwhile arrives without anybody's help."""
    import psutil

    folder = settings.state / "models" / "mender"
    promote(settings, "mender", b"first")
    process = parent()
    await_true(lambda: served(folder) == b"first")
    promote(settings, "mender", b"second")
    await_true(lambda: served(folder) == b"second")
    (follower,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    follower.wait(60)
    with FileLock(folder / "lock", timeout=5):
        assert served(folder) == b"second"
