"""Which training of the paper's network the evaluation takes."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

from components.config import RunConfig, Settings, TrainConfig
from components.evaluate.paper import find_paper
from components.inpainting.dataset import PreparedDataset
from components.inpainting.networks import WEIGHTS, build_generator, save_generator
from components.inpainting.scores import PAPER
from components.manifest import Manifest
from components.tracking import start_run


def test_the_nearest_usable_training_of_the_papers_network_is_taken(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    data = PreparedDataset.open(dataset)
    assert find_paper(settings, data, "")[1].startswith(
        "The paper's context encoder is not in these tables: MLflow holds no finished training of it"
    )
    paper = TrainConfig(model=PAPER, steps=7)
    others = data.manifest.model_copy(update={"digest": "e" * 64, "facts": data.manifest.facts | {"image_size": 8}})
    usable, broken = tmp_path / "usable", tmp_path / "broken"
    for folder in (usable, broken):
        folder.mkdir()
        save_generator(build_generator(PAPER), folder)
    (broken / WEIGHTS).write_bytes(b"")

    def trained(manifest: Manifest, folder: Path) -> str:
        with start_run(settings, RunConfig(), paper, manifest) as run:
            run.log_model_folder(folder)
        return run.id

    elsewhere = trained(others, usable)
    assert find_paper(settings, data, "")[1].endswith(
        "trained for 7 steps on another dataset, pictures of 8 pixels; it may have seen some of these."
    )
    here = trained(data.manifest, usable)
    trained(others, usable)  # newer, and farther
    found, origin = find_paper(settings, data, "")
    assert found is not None and origin.endswith("trained for 7 steps on this dataset.")
    assert "pictures of 8 pixels" in find_paper(settings, data, here)[1]
    trained(data.manifest, broken)
    assert find_paper(settings, data, "")[1] == origin
    MlflowClient(settings.mlflow_uri).delete_run(elsewhere)
