"""Trainings whose MLflow server is absent, slow, or answers errors: a real server behind bad weather."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun
from mlflow.entities import ViewType

from components.config import RunConfig, Settings, TrainConfig
from components.inpainting.dataset import PreparedDataset
from components.manifest import Manifest
from components.tracking import (
    Registry,
    Run,
    Subject,
    TrackingError,
    logged_model,
    open_run,
    runs_page,
    start_run,
    sync,
)
from tests.registered import pack, servable

Weather = Callable[[str], str]  # of a request's path: "clear", "refused", "lost" or "slow"
SECONDS_OF_PATIENCE = 1  # of the client, for one answer
SLOW = 2.5


def clear(path: str) -> str:
    return "clear"


class Server:
    """MLflow's own web application in this process, on a port where it listens or does not."""

    def __init__(self, app: Any) -> None:
        self._app, self.weather = app, clear
        self._server: Any = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def __call__(self, environ: dict[str, Any], answer: Callable[..., object]) -> Iterable[bytes]:
        weather = self.weather(environ["PATH_INFO"])
        if weather == "slow":
            time.sleep(SLOW)
        if weather == "refused":
            answer("500 Internal Server Error", [])
            return [b"thunder"]
        if weather == "lost":
            list(self._app(environ, lambda *_: None))
            answer("502 Bad Gateway", [])
            return [b"thunder"]
        served: Iterable[bytes] = self._app(environ, answer)
        return served

    def start(self) -> None:
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            def log(self, *_: object) -> None: ...

        self._server = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=Silent)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def without_addresses(patch: pytest.MonkeyPatch) -> None:
    """Let no address of an MLflow be set in this process."""
    for kind, module in (("TRACKING", "_tracking_service"), ("REGISTRY", "_model_registry")):
        patch.setenv(f"MLFLOW_{kind}_URI", "")
        patch.setattr(f"mlflow.tracking.{module}.utils._{kind.lower()}_uri", None)


@pytest.fixture(scope="module")
def mlflow_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """MLflow's web application on a sqlite store, serving artifacts too."""
    home = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{home}/mlflow.db")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(home / "artifacts"))
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        without_addresses(patch)  # for its end to find them as they were
        from mlflow.server import app, handlers

        handlers._get_tracking_store()
        handlers._get_model_registry_store()
        without_addresses(patch)  # the app set its own store's, and clients would go past the server
        yield app


@pytest.fixture
def server(mlflow_app: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, listening, and a client that has little patience with it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS_OF_PATIENCE))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = Server(mlflow_app)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def remote(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    return Settings(home=tmp_path / "state")


@pytest.fixture
def train(remote: Settings, dataset: Path, tmp_path: Path) -> Callable[..., Run]:
    """Train, in that the steps from ``first`` on log what trainings log; the run, closed."""

    def train(first: int = 0, stop: int = 30, experiment: str = "outages") -> Run:
        manifest: Manifest = PreparedDataset.open(dataset).manifest
        model = tmp_path / "model"
        model.mkdir(exist_ok=True)
        (model / "config.json").write_text("{}")
        with start_run(remote, RunConfig(experiment=experiment), TrainConfig(), manifest, tmp_path / "place") as run:
            for step in range(first, stop):
                run.log_metrics({"g_loss": step / 3, "d_loss": step / 7}, step)
                if step % 10 == 0:
                    run.log_image(np.full((8, 8, 3), step, np.uint8), "val/0_box", step)
            run.log_model_folder(model)
        return run

    return train


def assert_whole(remote: Settings, run_id: str, num_steps: int = 30) -> StoredRun:
    """Everything that ``train`` logs is there, once and in order."""
    client = MlflowClient(remote.mlflow_uri)
    found = client.get_run(run_id)
    for key, share in (("g_loss", 3), ("d_loss", 7)):
        history = client.get_metric_history(run_id, key)
        assert [metric.step for metric in history] == list(range(num_steps))
        assert [metric.value for metric in history] == [step / share for step in range(num_steps)]
        times = [metric.timestamp for metric in history]
        assert times == sorted(times)
    names = [file.path for file in client.list_artifacts(run_id, "images")]
    assert sorted(int(name.split("+")[2]) for name in names) == sorted([*range(0, num_steps, 10)] * 2)
    assert [file.path for file in client.list_artifacts(run_id, "generator")] == ["generator/config.json"]
    assert found.data.params["hp.steps"] == "1000"
    assert found.inputs is not None
    assert len(found.inputs.dataset_inputs) == 1
    assert found.info.status == "FINISHED"
    uid = found.data.tags["kintsugi.uid"]
    everywhere = client.search_runs([found.info.experiment_id], f"tags.`kintsugi.uid` = '{uid}'")
    assert [other.info.run_id for other in everywhere] == [run_id]
    return found


@pytest.mark.parametrize("seed", range(2))
def test_errors_lost_answers_and_slowness_at_any_moment(
    seed: int, server: Server, remote: Settings, train: Callable[..., Run]
) -> None:
    dice, count = random.Random(seed), 0

    def changeable(path: str) -> str:
        nonlocal count
        count += 1
        if count > 70:
            return "clear"
        return dice.choices(["clear", "refused", "lost", "slow"], [12, 3, 3, 1])[0]

    server.weather = changeable
    run = train()
    while count <= 70:
        with suppress(TrackingError):
            sync(remote)
            open_run(remote, run.id, run.uid)
    assert_whole(remote, open_run(remote, run.id, run.uid).id)


def test_an_absent_server_costs_the_training_nothing_and_gets_everything_later(
    server: Server, remote: Settings, train: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.stop()
    run = train()
    assert run.id == ""
    kept = remote.state / "journals" / run.uid
    assert f"entries wait in {kept}" in capsys.readouterr().out
    with pytest.raises(TrackingError, match=f"training is safe, its log waits in {kept}.*'kintsugi sync'"):
        open_run(remote, run.id, run.uid)
    with pytest.raises(TrackingError, match="nothing is lost"):
        sync(remote)
    server.start()
    with pytest.raises(TrackingError, match="state folder of the machine or volume that trained"):
        open_run(Settings(home=tmp_path / "elsewhere"), run.id, run.uid)
    opened = open_run(remote, run.id, run.uid)
    assert_whole(remote, opened.id)
    assert not kept.exists()
    assert open_run(remote, "", run.uid).id == opened.id
    assert Registry(remote, "mender").register(opened.id, {"digest": "a"}).run_id == opened.id
    assert sync(remote) == 0


def test_a_server_that_hangs_does_not_hold_up_a_training_and_the_next_run_delivers(
    server: Server, remote: Settings, train: Callable[..., Run]
) -> None:
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)):  # takes connections and never answers
        started = time.monotonic()
        hung = train()
        assert time.monotonic() - started < 60
    server.start()
    assert_whole(remote, train().id)
    deadline = time.monotonic() + 60
    while (remote.state / "journals" / hung.uid).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert_whole(remote, open_run(remote, "", hung.uid).id)


def test_a_run_that_a_slow_server_made_twice_is_one(
    server: Server, remote: Settings, train: Callable[..., Run]
) -> None:
    """The first request to make the run is served after the client gave up on it and sent another."""
    made, uploaded, again = list[str](), list[str](), threading.Event()

    def slow_at_first(path: str) -> str:
        if path.endswith("runs/create"):
            made.append(path)
            if len(made) == 1:
                assert again.wait(20)
            again.set()
        if "mlflow-artifacts" in path:
            uploaded.append(path)
            time.sleep(0.8 if len(uploaded) == 1 else 0)  # so that the first one is made by now
        return "clear"

    server.weather = slow_at_first
    run = train(experiment="twins")
    assert len(made) == 2
    assert_whole(remote, open_run(remote, run.id, run.uid).id)
    client = MlflowClient(remote.mlflow_uri)
    experiment = client.get_experiment_by_name("twins")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    assert sorted(run.info.lifecycle_stage for run in runs) == ["active", "deleted"]


def test_a_view_that_cannot_be_saved_disturbs_no_run(
    server: Server, remote: Settings, train: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    server.weather = lambda path: "refused" if path.endswith("set-experiment-tag") else "clear"
    assert_whole(remote, train(experiment="unseen").id)
    assert "does not take" not in capsys.readouterr().out
    experiment = MlflowClient(remote.mlflow_uri).get_experiment_by_name("unseen")
    assert experiment is not None and "mlflow.sharedViewState.kintsugi" not in experiment.tags
    assert runs_page(remote, "unseen") == f"{server.uri}/#/experiments?workflowType=machine_learning"
    server.weather = clear
    expected = f"{server.uri}/#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=kintsugi"
    assert runs_page(remote, "unseen").startswith(expected)


def test_an_interrupted_training_resumes_while_the_server_is_away(
    server: Server, remote: Settings, dataset: Path, tmp_path: Path, train: Callable[..., Run]
) -> None:
    manifest = PreparedDataset.open(dataset).manifest
    run_config, place = RunConfig(experiment="outages"), tmp_path / "place"
    with (
        pytest.raises(KeyboardInterrupt),
        start_run(remote, run_config, TrainConfig(), manifest, place) as first,
    ):
        for step in range(20):
            first.log_metrics({"g_loss": step / 3, "d_loss": step / 7}, step)
            if step % 10 == 0:
                first.log_image(np.full((8, 8, 3), step, np.uint8), "val/0_box", step)
        server.stop()
        raise KeyboardInterrupt
    second = train(first=10)
    assert second.uid == first.uid
    server.start()
    assert sync(remote) > 0
    assert_whole(remote, open_run(remote, second.id, second.uid).id)


def test_a_server_that_serves_artifacts_takes_a_version_with_its_logged_model(
    remote: Settings, train: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server compares a version's source with its run's artifacts, which a store by itself does not."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # the weather is fine
    run = train(experiment="logged")
    trained = Manifest(kind="model", digest="m" * 64, code_version="", facts={"steps": 30, "model": "residual_unet"})
    model_id = logged_model(remote, run.id, trained)
    about = Subject.of(model_id, "sample", "d" * 64)
    open_run(remote, run.id, run.uid).log_metrics({"test/ssim": 0.9}, 30, about)
    registry = Registry(remote, "mender")
    version, again = (registry.register(run.id, {"digest": "m" * 64} | servable(), "why", model_id) for _ in range(2))
    assert again == version
    found = MlflowClient(remote.mlflow_uri).get_logged_model(model_id)
    assert json.loads(found.tags["mlflow.modelVersions"]) == [{"name": "mender", "version": version.number}]
    assert [(metric.key, metric.value) for metric in found.metrics or []] == [("test/ssim", 0.9)]
    (tmp_path / "config.json").write_text("{}")
    registry.record(version.number, {"generator/config.json": tmp_path / "config.json"})
    pack(remote, registry, version.number)
    registry.promote(version.number)
    assert (registry.download(registry.get(version.number)) / "config.json").read_text() == "{}"
