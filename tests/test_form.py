"""The run form: one set of names for form, presets, overrides, command line and documents."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.config import ConfigError, PipelineConfig
from components.form import Mode, Preset, choices, defaults, document, fill, guide, presets, resolve
from components.plan import plan
from components.pools import POOLS, place
from components.steps import plan as plan_component
from pipelines.compile import compile_pipeline
from pipelines.lint import MAX_FIELDS
from pipelines.training_pipeline import training_pipeline

DOCUMENT = Path(__file__).parent.parent / "docs" / "parameters.md"


def test_pipeline_and_plan_take_exactly_the_fields_of_the_form() -> None:
    expected = defaults()
    pipeline = inspect.signature(training_pipeline.pipeline_func).parameters
    assert {name: p.default for name, p in pipeline.items()} == expected
    component = inspect.signature(plan_component.python_func).parameters
    own = ("run_id", "cpu_image", "gpu_image", "report")
    taken = {name: p.annotation for name, p in component.items() if name not in own}
    assert taken == {name: type(value) for name, value in expected.items()}
    assert set(expected) - {"run_preset", "run_mode", "run_overrides"} <= set(PipelineConfig().flat())
    assert len(expected) <= MAX_FIELDS


def test_the_compiled_form_offers_the_choices_and_the_other_file_does_not(tmp_path: Path) -> None:
    target = compile_pipeline(tmp_path / "kintsugi.yaml")
    fields = next(yaml.safe_load_all(target.read_text()))["root"]["inputDefinitions"]["parameters"]
    assert {name: field["literals"] for name, field in fields.items() if "literals" in field} == {
        name: choices(name) for name in ("train_model", "gate_mode", "run_gpu", "run_preset", "run_mode")
    }
    assert all("defaultValue" in field for field in fields.values())
    compat = target.with_name("kintsugi-compat.yaml").read_text()
    assert "literals" not in compat and "pipelineConfig" not in compat
    parse(target.read_text())
    parse(compat)


def parse(text: str) -> None:
    """Strictly, as a server does: unknown fields raise."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    spec, platform = yaml.safe_load_all(text)
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())


def test_presets_are_split_between_the_two_dropdowns() -> None:
    assert set(presets()) == {*choices("run_preset"), *choices("run_mode")} - {"standard"}
    assert not set(get_args(Preset)) & set(get_args(Mode))


def test_a_changed_field_wins_over_the_preset_and_an_override_over_both() -> None:
    config, origins = resolve({"run_preset": "cifar"})
    assert (config.train.steps, origins["train_steps"]) == (18500, "preset cifar")
    config, origins = resolve({"run_preset": "cifar", "train_steps": 77})
    assert (config.train.steps, origins["train_steps"]) == (77, "the form")
    config, origins = resolve({"run_preset": "cifar", "train_steps": 77, "run_overrides": "train_steps=1000"})
    assert config.train.steps == 1000
    assert "train_steps" not in origins  # it is at its default


def test_mode_comes_on_top_of_the_preset() -> None:
    config, _ = resolve({"run_preset": "photographs", "run_mode": "blind"})
    assert (config.data.image_size, config.train.model) == (128, "blind_unet")
    assert config.serve.model_name == "kintsugi-blind"


def test_overrides_take_lists_with_commas_in_them() -> None:
    config, _ = resolve({"run_overrides": "data_masks=box:2,text; train_seed=3, data_box_size=8\nrun_spot=true"})
    assert (config.data.masks, config.train.seed, config.data.box_size, config.run.spot) == ("box:2,text", 3, 8, True)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"run_preset": "cifer"}, "run_preset = 'cifer'; did you mean 'cifar'"),
        ({"run_mode": "sharp"}, "run_mode = 'sharp'; known: standard, fidelity"),
        ({"run_overrides": "train_sead=1"}, "did you mean 'train_seed'"),
        ({"run_overrides": "seed"}, "cannot read run_overrides 'seed'"),
        ({"run_overrides": "run_volume=mine"}, "run_volume; it has a field of its own"),
        ({"run_overrides": "run_preset=cifar"}, "run_preset; it has a field of its own"),
        ({"run_volume": "My Disk"}, "run_volume = 'My Disk'"),
        ({"run_webhook": "hooks.example"}, "run_webhook = 'hooks.example'"),
        ({"train_stpes": 1}, "no field 'train_stpes'; did you mean 'train_steps'"),
        ({"train_steps": -1, "run_overrides": "data_num_test=0"}, "data_num_test.*train_steps"),
    ],
)
def test_what_is_wrong_in_a_form_is_named(form: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        resolve(form)


@given(
    st.sampled_from(["", "cifar", "photographs,blind", "cifar,realism", "paper", "sample,cifar,fidelity"]),
    st.fixed_dictionaries(
        {},
        optional={
            "train_steps": st.sampled_from([0, 5, 1000, 18500]),
            "train_learning_rate": st.sampled_from([2e-3, 1e-5]),
            "data_num_shards": st.integers(1, 4),
            "run_spot": st.booleans(),
            "run_gpu": st.sampled_from([*POOLS, "none"]),
            "run_webhook": st.sampled_from(["", "https://hooks.example/a"]),
            "gate_max_size_mb": st.sampled_from([0.0, 1.5]),
        },
    ),
)
def test_every_run_can_be_written_down_in_the_form(names: str, changes: dict[str, object]) -> None:
    from components.form import load_preset

    config = PipelineConfig.from_flat(load_preset(names) | changes)
    form = fill(config, names)
    assert set(form) == set(defaults())
    assert resolve(form)[0] == config
    assert resolve(fill(config))[0] == config


def test_a_form_shows_the_preset_and_what_differs_from_it() -> None:
    form = fill(PipelineConfig.from_flat({"train_seed": 3}), "cifar")
    assert form["run_preset"] == "cifar"
    assert "train_seed=3" in str(form["run_overrides"]) and "train_steps=1000" in str(form["run_overrides"])
    assert fill(PipelineConfig()) == defaults()


def planned(tmp_path: Path, **form: object) -> dict[str, object]:
    names = (
        "data",
        "train",
        "gate",
        "serve",
        "run",
        "node_selector",
        "tolerations",
        "accelerator_limit",
        "image",
        "orders",
    )
    return dict(zip(names, plan(form, "cpu:1", "gpu:1", tmp_path / "report"), strict=True))


def test_plan_stamps_every_section_with_the_code_version(tmp_path: Path) -> None:
    result = planned(tmp_path, run_overrides="data_num_shards=3")
    sections = [str(result[name]) for name in PipelineConfig.model_fields]
    orders = result["orders"]
    assert isinstance(orders, list)
    assert all('"code_version":"0.1.0+' in section for section in [*sections, *orders])
    assert [json.loads(order)["shard"] for order in orders] == ["1/3", "2/3", "3/3"]


def test_plan_sends_a_training_to_the_cards_that_the_profile_names(tmp_path: Path) -> None:
    result = planned(tmp_path, run_gpu="l4", train_num_processes=2, run_spot=True)
    assert result["node_selector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert result["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
    ]
    assert (result["accelerator_limit"], result["image"]) == ("2", "gpu:1")


def test_plan_without_a_gpu_takes_any_node_and_the_smaller_image(tmp_path: Path) -> None:
    result = planned(tmp_path, run_gpu="none", train_num_processes=2)
    assert (result["node_selector"], result["tolerations"], result["accelerator_limit"]) == ({}, [], "0")
    assert result["image"] == "cpu:1"


def test_plan_reports_every_parameter_and_who_set_it_but_no_secret(tmp_path: Path) -> None:
    result = planned(
        tmp_path, run_preset="cifar", run_webhook="https://hooks.example/secret", run_overrides="train_seed=3"
    )
    page = (tmp_path / "report").read_text()
    assert "preset cifar" in page and "run_overrides" in page and "1 free nvidia-tesla-p100" in page
    assert "ended it on 2026-09-15" in page
    assert "secret" not in page + "".join(str(value) for value in result.values())


def test_every_profile_has_its_cards() -> None:
    assert [*POOLS, "none"] == choices("run_gpu")
    assert place("none", 4, spot=True).node_selector == {}
    assert len({pool.accelerator for pool in POOLS.values()}) == len(POOLS)


def test_the_guide_names_every_parameter() -> None:
    for name in {**PipelineConfig().flat(), **defaults()}:
        assert f"- {name} (default" in guide()
    description = training_pipeline.pipeline_spec.pipeline_info.description
    assert guide() in description


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text() == document(), "run: kintsugi parameters -o docs/parameters.md"
