from __future__ import annotations

from pathlib import Path

import pytest

from components.config import ConfigError, PipelineConfig
from components.form import load_preset, parse_assignments, presets


def test_unknown_parameter_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown parameter 'train_stpes'; did you mean 'train_steps'"):
        PipelineConfig.from_flat({"train_stpes": 5})


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("train_steps", -1, "train_steps = -1"),
        ("train_steps", "many", "train_steps = 'many'"),
        ("data_image_size", 50, "multiple of 16"),
        ("data_masks", "box,scraches", "'scraches' is no mask family; did you mean 'scratches'"),
        ("data_masks", " , ", "names no mask family"),
        ("train_model", "unet", "'residual_unet', 'blind_unet' or 'context_encoder'"),
        ("train_num_processes", 3, "train_batch_size = 8 does not divide into even shares for 3 processes"),
        ("gate_min_ssim", float("nan"), "gate_min_ssim"),
        ("serve_model_name", "No Spaces", "serve_model_name"),
    ],
)
def test_bad_values_are_named_with_their_parameter(name: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        PipelineConfig.from_flat({name: value})


def test_all_bad_values_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"data_num_test.*train_steps"):
        PipelineConfig.from_flat({"train_steps": -1, "data_num_test": 0})


def test_flat_parameters_make_the_same_config() -> None:
    config = PipelineConfig.from_flat({"train_steps": 7, "data_source": "pictures"})
    assert PipelineConfig.from_flat(config.flat()) == config


@pytest.mark.parametrize("preset", presets())
def test_presets_are_valid(preset: str) -> None:
    PipelineConfig.from_flat(load_preset(preset))


def test_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        load_preset("papr")


def test_of_several_presets_the_later_one_wins() -> None:
    both = load_preset("cifar,realism")
    assert both == load_preset("cifar") | load_preset("realism")


def test_realism_is_for_the_default_generator() -> None:
    assert PipelineConfig.from_flat(load_preset("cifar,realism")).train.quality == "realism"
    with pytest.raises(ConfigError, match="train_quality = realism trains residual_unet, not blind_unet"):
        PipelineConfig.from_flat(load_preset("blind,realism"))


def test_assignments_take_values_to_the_letter() -> None:
    parsed = parse_assignments(["train_steps=5", "gate_min_ssim=0.5", "data_source=a=[b: c", "run_name=010"])
    config = PipelineConfig.from_flat(parsed)
    assert (config.train.steps, config.gate.min_ssim) == (5, 0.5)
    assert (config.data.source, config.run.name) == ("a=[b: c", "010")
    with pytest.raises(ConfigError, match="write name=value"):
        parse_assignments(["train_steps"])


def test_a_folder_named_like_a_source_does_not_shadow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.cli import _config, _here

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample").mkdir()
    (tmp_path / "mine").mkdir()
    assert _here(_config("sample", None, [])).data.source == "sample"
    assert _here(_config("sample", "mine", [])).data.source == str(tmp_path / "mine")


def test_only_training_is_cached(tmp_path: Path) -> None:
    import yaml

    from pipelines.compile import compile_pipeline

    spec = next(yaml.safe_load_all(compile_pipeline(tmp_path / "kintsugi.yaml").read_text()))
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items() if "componentRef" in task and
             not name.startswith(("condition", "for-loop", "exit-handler"))}  # fmt: skip
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {"train"}
    assert len(tasks) == 11
