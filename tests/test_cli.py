"""Bad input at the command line: one sentence, what to do, exit code 2, no traceback."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from components.config import PipelineConfig, Settings
from components.inpainting.dataset import PreparedDataset
from pipelines import doctor, local
from pipelines.local import RunError, run_pipeline
from tests.conftest import Kintsugi
from tests.loopback import serve_http


def assert_one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def test_help_names_the_verbs_and_no_others(kintsugi: Kintsugi) -> None:
    help_text = kintsugi("--help").stdout
    verbs = [line.split()[1] for line in help_text.splitlines() if line.startswith("│ ") and line[2] != "-"]
    assert verbs == [
        "run",
        "prepare",
        "compile",
        "submit",
        "lint",
        "parameters",
        "serve",
        "follow",
        "ui",
        "inpaint",
        "models",
        "promote",
        "rollback",
        "sync",
        "doctor",
    ]


def test_unknown_preset_and_parameter_suggest_the_right_one(kintsugi: Kintsugi) -> None:
    assert_one_sentence(kintsugi("run", "--preset", "sampel"), "did you mean 'sample'")
    assert_one_sentence(kintsugi("run", "--set", "train_stpes=5"), "did you mean 'train_steps'")
    assert_one_sentence(kintsugi("run", "--set", "train_steps=-5"), "train_steps = '-5'")


def test_missing_empty_and_unreadable_data(kintsugi: Kintsugi, tmp_path: Path) -> None:
    assert_one_sentence(kintsugi("run", "--data", str(tmp_path / "none")), "there is no file or folder")
    (tmp_path / "empty").mkdir()
    assert_one_sentence(kintsugi("run", "--data", str(tmp_path / "empty")), "holds no file that may be a picture")
    for number in range(3):
        (tmp_path / "empty" / f"{number}.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert_one_sentence(kintsugi("run", "--data", str(tmp_path / "empty")), "3 of 3 pictures cannot be used", "0.jpg")


def test_inpaint_refuses_what_it_cannot_repair(kintsugi: Kintsugi, tmp_path: Path) -> None:
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    Image.new("RGB", (30, 20)).save(picture)
    Image.new("L", (10, 20)).save(mask)
    arguments = ("inpaint", str(picture), "-o", str(tmp_path / "out.png"), "--mask")
    assert_one_sentence(kintsugi(*arguments, str(mask)), "10x20", "30x20")
    assert_one_sentence(kintsugi(*arguments, str(tmp_path / "none.png")), "none.png")
    mask.write_bytes(b"no picture")
    assert_one_sentence(kintsugi(*arguments, str(mask)), "mask.png", "no picture in a format")
    Image.new("L", (30, 20)).save(mask)
    assert_one_sentence(kintsugi(*arguments, str(mask)), "paint the damage white")
    Image.new("L", (30, 20), 255).save(mask)
    assert_one_sentence(kintsugi(*arguments, str(mask)), "no model was promoted yet as 'kintsugi'", "make run")
    assert not (tmp_path / "out.png").exists()


def test_a_port_in_use(kintsugi: Kintsugi) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for verb in ("serve", "ui"):
            assert_one_sentence(kintsugi(verb, "--port", port), f"127.0.0.1:{port}", "choose another --port")


def test_no_space_left(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(RunError, match=r"a run needs .* MB; free some, or set KINTSUGI_HOME"):
        run_pipeline(PipelineConfig(), settings)


def test_a_state_folder_that_cannot_be_made(kintsugi: Kintsugi, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_sentence(kintsugi("run", home=tmp_path / "file" / "state"), "cannot be made", "KINTSUGI_HOME")


@pytest.fixture
def start_run() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start ``kintsugi run`` in a state folder, in a process group that is killed in the end."""
    started = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a shell's "&" inherit it ignored

    def start(home: Path) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "KINTSUGI_"))}
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "run"],
            env=environment | {"KINTSUGI_HOME": str(home), "COLUMNS": "200"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    signal.signal(signal.SIGINT, before)
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


StartRun = Callable[[Path], subprocess.Popen[str]]


def wait_for_line(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"the run ended before it said {word!r}")


_INTERRUPTED = (
    "interrupted; nothing half-written was kept; run again: pictures that were read are not read again, and a training "
    "goes on from its checkpoint"
)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["prepare", "train"])
@pytest.mark.parametrize("group", [True, False], ids=["terminal", "kill"])
def test_an_interrupted_run_leaves_nothing_half_written(
    step: str, group: bool, tmp_path: Path, kintsugi: Kintsugi, start_run: StartRun
) -> None:
    """Ctrl-C reaches the whole process group; ``kill -INT`` the command alone. Meanwhile a second run is refused."""
    home = tmp_path / "state"
    process = start_run(home)
    wait_for_line(process, step)
    if step == "train":
        assert_one_sentence(kintsugi("run", home=home), "another run is at work")
    time.sleep(1)
    (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert errors.strip() == f"error: {_INTERRUPTED}"
    assert not list((home / "runs").iterdir())
    assert not [path for path in home.rglob(".*") if path.is_dir()]
    with pytest.raises(ProcessLookupError):  # nothing of the run is left
        os.killpg(process.pid, 0)
    if (home / "mlflow.db").exists():
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("kintsugi")
        found = client.search_runs([experiment.experiment_id]) if experiment else []
        assert all(run.info.status == "KILLED" for run in found)


@pytest.mark.slow
def test_what_a_killed_run_left_is_swept_by_the_next(tmp_path: Path, kintsugi: Kintsugi, start_run: StartRun) -> None:
    home = tmp_path / "state"
    process = start_run(home)
    wait_for_line(process, "prepare")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(home.glob("runs/*/steps"))
    (tmp_path / "empty").mkdir()
    assert_one_sentence(
        kintsugi("run", "--data", str(tmp_path / "empty"), home=home), "holds no file that may be a picture"
    )
    (left,) = home.glob("runs/*/steps")  # the failed run's own, until the next
    assert not list(left.glob("*/prepare/dataset"))


def test_doctor_finds_this_machine_healthy(kintsugi: Kintsugi) -> None:
    result = kintsugi("doctor")
    assert result.returncode == 0, result.stdout
    assert "✗" not in result.stdout
    lines = dict(line.removeprefix("✓ ").split(": ", 1) for line in result.stdout.splitlines())
    assert list(lines) == [
        "Python", "packages", "device", "compute", "compiler", "memory", "shared memory", "state folder", "MLflow",
        "port 3000", "port 5000",
    ]  # fmt: skip
    assert "onnxruntime" in lines["packages"] and "torch" in lines["device"]
    assert lines["compute"].startswith("for residual_unet auto chooses ") and "; compile " in lines["compute"]
    assert lines["MLflow"] == "in the state folder, champion: none yet; 'make run' trains one"


def doctors_word_on_mlflow(monkeypatch: pytest.MonkeyPatch, home: Path, uri: str) -> str:
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    told = io.StringIO()
    assert not doctor.examine(Settings(home=home), Console(file=told, width=400))
    (line,) = (line for line in told.getvalue().splitlines() if "MLflow:" in line)
    return line.removeprefix("✗ MLflow: ")


def test_doctor_explains_what_an_mlflow_server_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Server(BaseHTTPRequestHandler):
        """Healthy, but it wants a login and does not know its own name, as MLflow behind a service does."""

        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 403 if "Authorization" in self.headers else 401)
            self.end_headers()

    with serve_http(Server) as host:
        asked = doctors_word_on_mlflow(monkeypatch, tmp_path, f"http://{host}")
        refused = doctors_word_on_mlflow(monkeypatch, tmp_path, f"http://user:secret@{host}")
    assert asked == f"http://{host} wants a login; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    assert refused.startswith(f"http://{host} answers 403: it does not know itself as '127.0.0.1'")
    assert "--allowed-hosts '127.0.0.1,127.0.0.1:*,localhost,localhost:*'" in refused and "secret" not in refused


def test_doctor_does_not_wait_for_an_mlflow_server_that_is_down_or_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "_MLFLOW_TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (1, silent.getsockname()[1]):
            line = doctors_word_on_mlflow(monkeypatch, tmp_path, f"http://127.0.0.1:{port}")
            assert line.startswith(f"http://127.0.0.1:{port} does not answer (")
            assert line.endswith("start it, or unset MLFLOW_TRACKING_URI to use the state folder")


def test_an_mlflow_server_that_is_down_is_one_sentence(
    kintsugi: Kintsugi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines import cli

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(sys, "argv", ["kintsugi", "models"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: MLflow at http://127.0.0.1:1 does not answer")


def test_brackets_in_paths_are_shown_as_they_are(kintsugi: Kintsugi, tmp_path: Path) -> None:
    missing = tmp_path / "photo[red].png"
    result = kintsugi("inpaint", str(missing), "--mask", "m.png", "-o", str(tmp_path / "out.png"))
    assert_one_sentence(result, "photo[red].png")


def test_models_of_an_empty_state_say_what_to_do(kintsugi: Kintsugi) -> None:
    assert_one_sentence(kintsugi("models"), "no version of 'kintsugi'", "make run")


def test_prepare_makes_a_dataset_and_its_card_alone(kintsugi: Kintsugi, picture_folder: Path, tmp_path: Path) -> None:
    chosen = ("--data", str(picture_folder), "--set", "data_num_train=16", "--set", "data_num_test=4")
    result = kintsugi("prepare", *chosen, "-o", str(tmp_path / "made"))
    assert result.returncode == 0, result.stderr
    assert str(tmp_path / "made" / "card.html") in result.stdout
    assert PreparedDataset.open(tmp_path / "made" / "dataset").split("train").images.shape == (16, 64, 64, 3)
    assert_one_sentence(kintsugi("prepare", "--data", "nowhere", "-o", str(tmp_path)), "no file or folder 'nowhere'")


def test_prepare_touches_nothing_that_is_not_its_own(kintsugi: Kintsugi, picture_folder: Path) -> None:
    """A user's own folder called dataset, pictures and all, stays as it is."""
    own = picture_folder.rename(picture_folder.with_name("dataset"))
    before = sorted(path.read_bytes() for path in own.iterdir())
    chosen = ("--data", str(own), "--set", "data_num_train=16")
    assert_one_sentence(kintsugi("prepare", *chosen, "-o", str(own.parent)), "exists and is no dataset of ours")
    assert sorted(path.read_bytes() for path in own.iterdir()) == before
    assert_one_sentence(kintsugi("prepare", "--data", "", "-o", str(own.parent / "made")), "data_source = ''")
    assert_one_sentence(kintsugi("prepare", "--data", "file://x", "-o", str(own.parent / "made")), "an absolute path")
