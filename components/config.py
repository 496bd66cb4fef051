"""Every knob of a run: frozen models, one per step, and the settings of the machine it runs on.

A run is described by flat parameters such as ``train_steps``: the prefix names the section, the rest
its field. The Kubeflow form, the command line and the presets all speak these names.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MASK_FAMILIES = ("box", "strokes", "scratches", "text")
NAMED_SOURCES = ("sample", "cifar10")

Parameter = str | int | float | bool


class ConfigError(ValueError):
    """A parameter, preset or setting is wrong; the message says which, and what to do."""


class Section(BaseModel):
    """What all sections share: frozen, unknown fields refused, the code version they were planned with."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    code_version: str = Field("", description="set by the plan step, so that caches see code changes")

    @classmethod
    def parameter_fields(cls) -> list[str]:
        """Names of the fields that a user sets."""
        return [name for name in cls.model_fields if name != "code_version"]


class DataConfig(Section):
    """What the prepare step turns into a dataset."""

    source: str = Field(
        "sample",
        description="sample | cifar10 (download) | a folder of CIFAR-10 python batches | a folder of pictures",
    )
    classes: str = Field("all", min_length=1, description="keep only these classes, comma-separated, or all")
    image_size: int = Field(64, ge=32, le=512, multiple_of=16, description="height and width, pixels")
    masks: str = Field(",".join(MASK_FAMILIES), description="mask families, comma-separated")
    box_size: int = Field(0, ge=0, description="side of the box hole, pixels; 0: a quarter to a half of the picture")
    num_train: int = Field(2048, ge=8, description="pictures or crops to train on, at most")
    num_val: int = Field(32, ge=4, description="pictures or crops watched while training, at most")
    num_test: int = Field(96, ge=4, description="pictures or crops the evaluation sees, at most")
    seed: int = Field(0, ge=0, description="seed of crops, masks and damages")

    @field_validator("masks")
    @classmethod
    def _known_families(cls, value: str) -> str:
        families = split_names(value)
        if not families:
            raise ValueError(f"names no mask family; choose from {', '.join(MASK_FAMILIES)}")
        for family in families:
            if family not in MASK_FAMILIES:
                raise ValueError(f"{family!r} is no mask family{suggestion(family, MASK_FAMILIES)}")
        return ",".join(families)

    @property
    def mask_families(self) -> tuple[str, ...]:
        """The mask families, in the order given."""
        return split_names(self.masks)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes kept; empty means all."""
        return () if self.classes == "all" else split_names(self.classes)


class TrainConfig(Section):
    """How the train step trains."""

    model: Literal["residual_unet", "context_encoder"] = Field("residual_unet", description="the generator")
    steps: int = Field(1000, ge=0, description="optimiser steps of the generator")
    batch_size: int = Field(8, ge=2, le=4096, multiple_of=2, description="pictures a step; half of it for D")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="peak learning rate of the generator")
    adversarial_weight: float = Field(0.002, ge=0, le=1, description="share of the adversarial loss")
    log_interval: int = Field(50, ge=1, description="steps between two lines of the log")
    sample_interval: int = Field(250, ge=1, description="steps between two grids of sample pictures")
    seed: int = Field(0, ge=0, description="seed of weights, batches and masks")


class GateConfig(Section):
    """What a model must reach to be admitted. Scores are means over test pictures and mask families."""

    min_ssim: float = Field(0.9, ge=-1, le=1, description="SSIM of the composited picture, at least")
    max_mse: float = Field(0.02, ge=0, le=1, description="MSE inside the hole, pixels in [0, 1], at most")


class ServeConfig(Section):
    """Under which name the model is registered and served."""

    model_name: str = Field(
        "kintsugi", pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$", description="registered model in MLflow"
    )


class RunConfig(Section):
    """Where the run is filed in MLflow."""

    experiment: str = Field("kintsugi", min_length=1, description="MLflow experiment")
    name: str = Field("training", min_length=1, description="name of the MLflow run")


class PipelineConfig(BaseModel):
    """All sections of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    gate: GateConfig = GateConfig()
    serve: ServeConfig = ServeConfig()
    run: RunConfig = RunConfig()

    def flat(self) -> dict[str, Parameter]:
        """The run as flat parameters, ``{"train_steps": 1000, ...}``."""
        return {name: getattr(getattr(self, section), field) for name, section, field in _flat_fields()}

    @classmethod
    def from_flat(cls, parameters: Mapping[str, object]) -> PipelineConfig:
        """Build a run from flat parameters; what is absent keeps its default.

        Raises ``ConfigError`` that names every unknown parameter (with the nearest known name) and
        every value out of range.
        """
        known = {name: (section, field) for name, section, field in _flat_fields()}
        sections: dict[str, dict[str, object]] = {}
        for name, value in parameters.items():
            if name not in known:
                raise ConfigError(f"unknown parameter {name!r}{suggestion(name, known)}")
            section, field = known[name]
            sections.setdefault(section, {})[field] = value
        try:
            return cls.model_validate(sections)
        except ValidationError as error:
            raise ConfigError("; ".join(_sentences(error))) from None


class Settings(BaseSettings):
    """Settings of the machine, read from the environment (prefix ``KINTSUGI_``)."""

    model_config = SettingsConfigDict(env_prefix="KINTSUGI_", frozen=True)

    home: Path = Field(Path(".kintsugi"), description="the state folder: runs, MLflow, Bentos, downloads")
    tracking_uri: str = Field(
        "", validation_alias="MLFLOW_TRACKING_URI", description="empty: sqlite in the state folder"
    )

    @property
    def state(self) -> Path:
        """The state folder, absolute."""
        return self.home.expanduser().absolute()

    def make_state(self) -> Path:
        """Make the state folder where it is missing. Raises ``ConfigError`` where it cannot be made."""
        try:
            self.state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the state folder {self.state} cannot be made ({error.strerror}); set KINTSUGI_HOME to another"
            ) from None
        return self.state

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking URI: the environment's, else sqlite in the state folder."""
        return self.tracking_uri or f"sqlite:///{self.state / 'mlflow.db'}"

    @property
    def downloads(self) -> Path:
        """Where downloaded datasets are kept."""
        return self.state / "downloads"

    @property
    def bento_home(self) -> Path:
        """The Bento store of this state folder."""
        return self.state / "bentoml"


def missing_source(folder: Path) -> ConfigError:
    """The error for a data folder that is none."""
    found = f"{str(folder)!r} is a file" if folder.exists() else f"there is no folder {str(folder)!r}"
    return ConfigError(
        f"data_source: {found}; give a folder of pictures or of CIFAR-10 python batches, or 'sample' or 'cifar10'"
    )


def parameter_guide() -> str:
    """Every parameter with its default and meaning, one a line, grouped by prefix."""
    lines = []
    for section, model in _sections():
        lines.append(f"{section}: {model.__doc__}")
        for name in model.parameter_fields():
            info = model.model_fields[name]
            lines.append(f"- {section}_{name} (default {info.default!r}): {info.description}")
    return "\n".join(lines)


def load_preset(folder: Path, name: str) -> dict[str, Parameter]:
    """Read a preset, a YAML file of flat parameters. Raises ``ConfigError`` for an unknown name."""
    presets = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in presets:
        raise ConfigError(f"unknown preset {name!r}{suggestion(name, presets)}")
    content: dict[str, Parameter] = yaml.safe_load(presets[name].read_text()) or {}
    return content


def parse_assignments(assignments: list[str]) -> dict[str, Parameter]:
    """Parse ``name=value`` pairs of the command line; the configuration turns values into numbers."""
    parsed: dict[str, Parameter] = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise ConfigError(f"cannot read --set {assignment!r}; write name=value, e.g. --set train_steps=300")
        parsed[name.strip()] = value
    return parsed


def split_names(text: str) -> tuple[str, ...]:
    """Split a comma-separated list, dropping blanks and repeats, keeping the order."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def suggestion(name: str, known: Mapping[str, Any] | tuple[str, ...] | list[str]) -> str:
    """The tail of an error about ``name``: the nearest known name, else all of them."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _sections() -> Iterator[tuple[str, type[Section]]]:
    for section, field in PipelineConfig.model_fields.items():
        yield section, cast(type[Section], field.annotation)


def _flat_fields() -> Iterator[tuple[str, str, str]]:
    for section, model in _sections():
        for name in model.parameter_fields():
            yield f"{section}_{name}", section, name


def _sentences(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        name = "_".join(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        yield f"{name} = {problem['input']!r}: {reason[0].lower()}{reason[1:]}"
