"""Kills, crowds and changes: what is read stays read, and the dataset is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.config import ConfigError, DataConfig, ReadOrder, Settings
from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Photograph, decode_photograph
from components.manifest import read_manifest
from components.prepare import ingest, prepare, prepare_here
from components.prepare.facts import QuarantineError
from tests.conftest import data_config


def prepared(folder: Path, **changes: object) -> PreparedDataset:
    return PreparedDataset.open(
        prepare_here(data_config(**changes), folder, Settings(home=folder / "state", workers=1))
    )


_PREPARE = """
import sys
from pathlib import Path
from typing import Any
from components.config import DataConfig, Settings
from components.prepare import prepare_here
config = DataConfig.model_validate_json(sys.argv[1])
prepare_here(config, Path(sys.argv[2]), Settings(home=Path(sys.argv[2]) / "state", workers=2))
"""


def start(config: DataConfig, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _PREPARE, config.model_dump_json(), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_killed_at_any_moment_it_resumes_and_ends_with_the_same_digest(many: Path, tmp_path: Path) -> None:
    config = data_config(source=str(many), num_train=2000, num_test=40, image_size=128)
    undisturbed = PreparedDataset.open(prepare_here(config, tmp_path / "whole", Settings(home=tmp_path / "state")))
    folder, kills, known = tmp_path / "killed", 0, dict[Path, int]()
    for delay in np.arange(0.5, 30, 0.1):
        process = start(config, folder)
        time.sleep(delay)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        written = {path: path.stat().st_mtime_ns for path in folder.glob("state/prepare/*/chunks/*.jsonl")}
        if not (folder / "dataset").exists():  # then the work folder is cleared away
            assert known.items() <= written.items()  # what was read is kept, and not read again
        known = written
    assert process.wait() == 0
    assert kills >= 3
    assert read_manifest(folder / "dataset", "dataset").digest == undisturbed.manifest.digest


def test_two_at_once_in_one_state_folder_end_with_the_same_digest(many: Path, tmp_path: Path) -> None:
    config = data_config(source=str(many), num_train=600)
    state, code = tmp_path / "state", _PREPARE.replace('Path(sys.argv[2]) / "state"', "Path(sys.argv[3])")
    processes = [
        subprocess.Popen([sys.executable, "-c", code, config.model_dump_json(), str(tmp_path / name), str(state)])
        for name in ("one", "two", "three")
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    digests = {read_manifest(tmp_path / name / "dataset", "dataset").digest for name in ("one", "two", "three")}
    assert len(digests) == 1
    assert not list(state.glob("prepare/*/chunks"))


def test_pictures_that_change_while_they_are_prepared_are_noticed(many: Path, tmp_path: Path) -> None:
    config, settings = (
        data_config(source=str(many), num_train=500, image_size=32),
        Settings(home=tmp_path / "state", workers=1),
    )
    ingest(ReadOrder(config=config), tmp_path / "part", tmp_path / "part.html", settings)
    for path in many.rglob("*.*"):
        Image.new("RGB", (80, 70), "red").save(path)
    with pytest.raises(ConfigError, match=r"\.(png|jpg) changed or vanished while it was prepared; run again"):
        prepare(config, [tmp_path / "part"], tmp_path / "dataset", tmp_path / "card.html", settings)


def test_a_source_that_changes_between_shards_is_noticed(many: Path, tmp_path: Path) -> None:
    config, settings = data_config(source=str(many), num_shards=2), Settings(home=tmp_path / "state", workers=1)
    ingest(ReadOrder(config=config, shard="1/2"), tmp_path / "1", tmp_path / "1.html", settings)
    (many / "cat" / "002.png").rename(many / "0.png")
    ingest(ReadOrder(config=config, shard="2/2"), tmp_path / "2", tmp_path / "2.html", settings)
    with pytest.raises(ConfigError, match="changed while its shards were read"):
        prepare(config, [tmp_path / "1", tmp_path / "2"], tmp_path / "dataset", tmp_path / "card.html", settings)


def test_a_failure_that_may_pass_is_not_remembered(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.prepare import chunks, entries

    def unreadable(entry: entries.Entry, work: Path) -> bytes:
        if entry.name.endswith("003.jpg"):
            raise entries.VanishedError("the file cannot be read (Permission denied)")
        return entries.read_entry(entry, work)

    with monkeypatch.context() as patch, pytest.raises(QuarantineError, match="Permission denied"):
        patch.setattr(chunks, "read_entry", unreadable)
        prepared(tmp_path, source=str(many), max_quarantine=0)
    assert prepared(tmp_path, source=str(many), max_quarantine=0).manifest.facts["left_out"]["unusable"] == 0


def test_a_picture_that_kills_its_decoder_is_quarantined(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.prepare import chunks

    deadly = (many / "dog" / "061.png").read_bytes()

    def crash(content: bytes, *, at_least: int) -> Photograph:
        if content == deadly:
            os.kill(os.getpid(), signal.SIGSEGV)
        return decode_photograph(content, at_least=at_least)

    monkeypatch.setattr(chunks, "decode_photograph", crash)
    config = data_config(source=str(many), num_train=0)
    data = PreparedDataset.open(prepare_here(config, tmp_path, Settings(home=tmp_path / "state", workers=2)))
    (told,) = (json.loads(line) for line in (data.folder / "quarantine.jsonl").read_text().splitlines())
    assert told["name"] == "dog/061.png"
    assert "kills the process" in told["reason"]
    assert sum(data.manifest.facts["photos"].values()) + sum(data.manifest.facts["left_out"].values()) == 120


def test_a_killed_run_leaves_no_process_behind(many: Path, tmp_path: Path) -> None:
    import psutil

    process = start(data_config(source=str(many), num_train=20_000, image_size=256), tmp_path / "killed")
    workers: list[psutil.Process] = []
    while not workers and process.poll() is None:
        workers = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    assert workers
    assert not psutil.wait_procs(workers, timeout=20)[1]
