from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.config import RunConfig, Settings, TrainConfig
from components.inpainting.dataset import PreparedDataset
from components.tracking import CHALLENGER, CHAMPION, PREVIOUS, Registry, RegistryError, Run, start_run


@pytest.fixture
def run(settings: Settings, dataset: Path, tmp_path: Path) -> Run:
    """A finished run with a model folder."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with start_run(settings, RunConfig(), TrainConfig(), PreparedDataset.open(dataset).manifest) as run:
        run.log_model_folder(model)
    return run


def status(settings: Settings, run: Run) -> str:
    from mlflow import MlflowClient

    return str(MlflowClient(settings.mlflow_uri).get_run(run.id).info.status)


def test_a_run_records_parameters_dataset_metrics_and_pictures(run: Run, settings: Settings, dataset: Path) -> None:
    from mlflow import MlflowClient

    run.log_metrics({"g_loss": 0.5, "val/ssim/box": 0.9}, step=3)
    run.log_image(np.zeros((8, 8, 3), np.uint8), "val/0_box", 3)
    client = MlflowClient(settings.mlflow_uri)
    found = client.get_run(run.id)
    assert found.data.params["hp.steps"] == "1000"
    assert found.data.metrics == {"g_loss": 0.5, "val/ssim/box": 0.9}
    digest = PreparedDataset.open(dataset).manifest.digest
    assert found.inputs is not None
    assert found.inputs.dataset_inputs[0].dataset.digest == digest[:32]
    assert found.data.tags["dataset"] == digest
    assert any("val" in file.path for file in client.list_artifacts(run.id, "images"))
    assert found.info.artifact_uri.startswith(f"file://{settings.state}")


@pytest.mark.parametrize(("error", "expected"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_broken_run_is_closed_as_what_it_is(
    error: type[BaseException], expected: str, settings: Settings, dataset: Path
) -> None:
    manifest = PreparedDataset.open(dataset).manifest
    with pytest.raises(error), start_run(settings, RunConfig(), TrainConfig(), manifest) as run:
        raise error
    assert status(settings, run) == expected


def test_an_injected_run_is_resumed_and_left_open(
    run: Run, settings: Settings, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow_uri)
    injected = client.create_run(client.get_run(run.id).info.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with start_run(settings, RunConfig(), TrainConfig(), PreparedDataset.open(dataset).manifest) as resumed:
        assert resumed.id == injected
    assert status(settings, resumed) == "RUNNING"


def test_registering_twice_makes_one_version(run: Run, settings: Settings) -> None:
    registry = Registry(settings, "mender")
    assert registry.versions() == []
    assert registry.aliased(CHAMPION) is None
    first = registry.register(run.id, {"digest": "a"})
    assert registry.register(run.id, {"digest": "a"}) == first
    second = registry.register(run.id, {"digest": "b"})
    assert [v.number for v in registry.versions()] == [second.number, first.number]
    assert registry.aliases() == {CHALLENGER: second.number}
    assert (registry.download(first) / "config.json").exists()


def test_promotion_compares_and_sets(run: Run, settings: Settings) -> None:
    registry = Registry(settings, "mender")
    one, two, three = (registry.register(run.id, {"digest": d}).number for d in "abc")
    registry.promote(one, "")
    registry.promote(one, "")  # a retried step
    with pytest.raises(RegistryError, match=r"compared with no model, but by now version 1 is champion"):
        registry.promote(two, "")
    registry.promote(two, one)
    with pytest.raises(RegistryError, match=r"compared with version 1, but by now version 2"):
        registry.promote(three, one)
    assert registry.aliases() == {CHAMPION: two, PREVIOUS: one, CHALLENGER: three}
    assert registry.get(two).tags["replaced"] == one


def test_going_back_and_forth(run: Run, settings: Settings) -> None:
    registry = Registry(settings, "mender")
    one, two = (registry.register(run.id, {"digest": d}).number for d in "ab")
    registry.promote(one, "")
    registry.promote(two, one)
    registry.promote(one, two)
    assert registry.aliases() == {CHAMPION: one, PREVIOUS: two}
    registry.promote(two, one)
    assert registry.aliases() == {CHAMPION: two, PREVIOUS: one}


def test_unknown_versions_and_lost_files_are_named(run: Run, settings: Settings) -> None:
    registry = Registry(settings, "mender")
    version = registry.register(run.id, {"digest": "a"})
    with pytest.raises(RegistryError, match="no version 9; it has 1"):
        registry.get("9")
    with pytest.raises(RegistryError, match="has lost its bento"):
        registry.download(version, "bento/kintsugi.bento")
