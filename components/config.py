"""Every knob of a run: frozen models, one per step, and the settings of the machine it runs on.

A run is described by flat parameters such as ``train_steps``: the prefix names the section, the rest
its field. The Kubeflow form, the command line and the presets all speak these names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from components.notation import MASK_FAMILIES as MASK_FAMILIES
from components.notation import NAMED_SOURCES as NAMED_SOURCES
from components.notation import ConfigError as ConfigError
from components.notation import parse_limits, parse_weights, require_family
from components.notation import split_names as split_names
from components.notation import suggestion as suggestion

Parameter = str | int | float | bool


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
        min_length=1,
        description="sample | cifar10 (download) | a folder or archive (tar, zip) of pictures or of CIFAR-10 batches, "
        "as a path or as file://, gs://, s3://, http(s)://",
    )
    classes: str = Field(
        "auto",
        min_length=1,
        description="keep only these, comma-separated; auto: cat,dog of CIFAR-10, else all",
    )
    image_size: int = Field(64, ge=32, le=512, multiple_of=16, description="height and width, pixels")
    crop: Literal["random", "center", "stretch"] = Field(
        "random",
        description="random: square crops of many scales | center: the largest centred square | stretch: all of it",
    )
    masks: str = Field(
        "box,strokes,scratches,text",
        description="mask families, comma-separated, each with a weight where it is not 1, as in box:2,text; known: "
        + ", ".join(MASK_FAMILIES),
    )
    mask_source: str = Field("", description="folder or archive of your own masks (white = hole), the family custom")
    box_size: int = Field(0, ge=0, description="side of box and center_box, pixels; 0: box a quarter to a half, "
                          "center_box a half of the picture")  # fmt: skip
    num_train: int = Field(2048, ge=0, description="pictures or crops to train on, at most; 0: every picture once")
    num_val: int = Field(32, ge=4, description="pictures or crops watched while training, at most")
    num_test: int = Field(96, ge=4, description="pictures or crops the evaluation sees, at most")
    max_quarantine: float = Field(0.05, ge=0, le=1, description="share of pictures that may be unusable")
    reference: str = Field("", description="folder or URI of an earlier dataset to compare with in the card")
    num_shards: int = Field(1, ge=1, le=64, description="pods that read and crop the pictures side by side")
    seed: int = Field(0, ge=0, description="seed of crops, masks and damages")

    @field_validator("masks")
    @classmethod
    def _known_families(cls, value: str) -> str:
        weights = parse_weights(value)
        if not weights:
            raise ValueError(f"names no mask family; choose from {', '.join(MASK_FAMILIES)}")
        for family in weights:
            require_family(family)
        return ",".join(name if weight == 1 else f"{name}:{weight:g}" for name, weight in weights.items())

    @field_validator("classes")
    @classmethod
    def _some_class(cls, value: str) -> str:
        if not split_names(value):
            raise ValueError("names no class; give class names, comma-separated, or auto, or all")
        return value

    @model_validator(mode="after")
    def _fitting_together(self) -> Self:
        if ("custom" in self.mask_weights) != bool(self.mask_source):
            raise ValueError("data_mask_source is given; add custom to data_masks" if self.mask_source else
                             "data_masks names custom; give your masks as data_mask_source")  # fmt: skip
        if self.mask_source in NAMED_SOURCES:
            raise ValueError(f"data_mask_source = {self.mask_source!r} is a source of pictures, not of masks")
        if self.box_size >= self.image_size:
            raise ValueError(f"data_box_size = {self.box_size} leaves nothing of {self.image_size} pixels to see")
        return self

    @property
    def mask_weights(self) -> dict[str, float]:
        """Mask families and their weights, in the order given."""
        return parse_weights(self.masks)

    @property
    def shards(self) -> list[str]:
        """The shards of the work, ``["1/1"]`` or ``["1/3", "2/3", "3/3"]``."""
        return [f"{number + 1}/{self.num_shards}" for number in range(self.num_shards)]


class ReadOrder(BaseModel):
    """What one pod is to read: its shard, ``"2/3"``, of a source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: DataConfig
    shard: str = Field("1/1", pattern=r"^[1-9]\d*/[1-9]\d*$")


class TrainConfig(Section):
    """How the train step trains."""

    model: Literal["residual_unet", "blind_unet", "context_encoder"] = Field(
        "residual_unet", description="the generator; blind_unet finds the damage itself"
    )
    quality: Literal["fidelity", "realism"] = Field(
        "fidelity",
        description="fidelity: repairs close to the truth (MSE, SSIM) | realism: repairs as sharp as the picture, for "
        "residual_unet; use the preset, which also weighs the adversarial loss",
    )
    steps: int = Field(1000, ge=0, description="optimiser steps of the generator")
    batch_size: int = Field(8, ge=2, le=4096, multiple_of=2, description="pictures a step; half of it for D")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="peak learning rate of the generator")
    adversarial_weight: float = Field(0.002, ge=0, le=1, description="share of the adversarial loss")
    log_interval: int = Field(50, ge=1, description="steps between two lines of the log")
    sample_interval: int = Field(250, ge=1, description="steps between two grids of sample pictures")
    checkpoint_interval: float = Field(60.0, ge=0, description="seconds between two checkpoints; 0: one each step")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="of the networks' arithmetic; auto: bf16 where it is faster, else fp32; fp16: with loss scaling",
    )
    compile: Literal["auto", "off", "on"] = Field(
        "auto", description="compile the networks; auto: where supported, and on a CPU for long trainings only"
    )
    num_processes: int = Field(1, ge=1, le=64, description="processes that train together on a node, one per GPU")
    num_nodes: int = Field(
        1, ge=1, le=64, description="nodes of a cluster that train together, train_num_processes on each; above 1 it "
        "takes Kubeflow Trainer and a run_volume that is ReadWriteMany",
    )  # fmt: skip
    seed: int = Field(0, ge=0, description="seed of weights, batches and masks")

    @model_validator(mode="after")
    def _realism_of_the_default(self) -> Self:
        if self.quality == "realism" and self.model != "residual_unet":
            raise ValueError(f"train_quality = realism trains residual_unet, not {self.model}; leave one of them out")
        return self

    @model_validator(mode="after")
    def _even_shares(self) -> Self:
        count = self.num_processes * self.num_nodes
        if self.batch_size % (2 * count):
            raise ValueError(
                f"train_batch_size = {self.batch_size} does not divide into even shares for {count} processes; "
                f"make it a multiple of {2 * count}"
            )
        return self


class GatePolicy(Section):
    """What a model must reach to be admitted. Scores are means over test pictures and mask families."""

    mode: Literal["enforce", "manual", "dry_run", "off"] = Field(
        "enforce",
        description="manual: what passes becomes challenger, and champion by 'kintsugi promote' | dry_run: decide, "
        "register nothing | off: whatever was trained passes",
    )
    min_ssim: float = Field(0.9, ge=-1, le=1, description="SSIM of the composited picture, at least")
    max_mse: float = Field(0.02, ge=0, le=1, description="MSE inside the hole, pixels in [0, 1], at most")
    family_min_ssim: str = Field("", description="the same for single mask families, as in box:0.8,text:0.95")
    family_max_mse: str = Field("", description="the same for single mask families, as in box:0.02,text:0.01")
    min_mask_f1: float = Field(0.7, ge=0, le=1, description="F1 of the damage that a blind model finds, at least")
    champion_margin: float = Field(
        0.01, ge=0, le=2, description="SSIM that a slice of the test pictures may lose beside the champion, at most"
    )
    champion_margin_mse: float = Field(
        0.25, ge=0, description="share by which a slice's hole MSE may exceed the champion's, at most"
    )
    max_latency_ms: float = Field(
        0.0, ge=0, description="of the exported model on a CPU, per picture of data_image_size; 0: any"
    )
    max_size_mb: float = Field(0.0, ge=0, description="of the exported model; 0: any")

    @field_validator("family_min_ssim", "family_max_mse")
    @classmethod
    def _known_families(cls, value: str) -> str:
        return ",".join(f"{family}:{limit!r}" for family, limit in parse_limits(value).items())

    @property
    def family_limits(self) -> dict[str, dict[str, float]]:
        """Per mask family what ``ssim`` must reach and ``hole_mse`` may not exceed, where the policy says so."""
        limits: dict[str, dict[str, float]] = {}
        for metric, value in (("ssim", self.family_min_ssim), ("hole_mse", self.family_max_mse)):
            for family, limit in parse_limits(value).items():
                limits.setdefault(family, {})[metric] = limit
        return limits


class ServeConfig(Section):
    """Under which name the model is registered and served."""

    model_name: str = Field(
        "kintsugi", pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$", description="registered model in MLflow"
    )
    blind_model: str = Field(
        "auto",
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,68}$",
        description="registered model whose champion repairs pictures that come without a mask | auto: "
        "<model_name>-blind, where it has a champion | none",
    )

    @property
    def paired(self) -> str:
        """The registered model that repairs without a mask; ``""`` for none."""
        return {"auto": f"{self.model_name}-blind", "none": ""}.get(self.blind_model, self.blind_model)

    @field_validator("model_name", "blind_model")
    @classmethod
    def _no_ledger(cls, value: str) -> str:
        if value.endswith(".ledger"):
            raise ValueError("ends in .ledger, which is kept for the histories of models; choose another name")
        return value


class RunConfig(Section):
    """Where the run is filed; on a cluster, on which nodes it trains, where its state lies and who hears of its end."""

    experiment: str = Field("kintsugi", min_length=1, description="MLflow experiment")
    name: str = Field(
        "training", min_length=1, description="name of the run; training: in MLflow what was trained, and when"
    )
    gpu: Literal["p100", "l4", "t4", "v100", "a100", "h100", "none"] = Field(
        "p100", description="cards of the nodes that train, train_num_processes on each; none: a CPU"
    )
    spot: bool = Field(False, description="whether spot nodes may train; a preempted training goes on elsewhere")
    volume: str = Field(
        "kintsugi",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="volume claim for checkpoints, and for MLflow where there is no server; made where it is missing",
    )
    webhook: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        exclude=True,  # whoever knows it can write there
        description="address that is told how the run ended, as JSON with a text, as Slack takes it; empty: the "
        "secret's KINTSUGI_WEBHOOK, if there is one",
    )


class PipelineConfig(BaseModel):
    """All sections of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    gate: GatePolicy = GatePolicy()
    serve: ServeConfig = ServeConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _limits_of_drawn_families(self) -> Self:
        for family in self.gate.family_limits:
            if family not in self.data.mask_weights:
                raise ValueError(f"the gate has a limit for {family!r}, which data_masks = {self.data.masks!r} lacks")
        return self

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
    volume: Path | None = Field(None, description="where a pod finds its shared volume; state goes there, not home")
    workers: int = Field(0, ge=0, description="processes that decode pictures; 0: one for each core")
    webhook: str = Field("", description="address that is told how a run ended, where run_webhook names none")
    kubeflow_url: str = Field("", description="address of the Kubeflow Pipelines web pages, for links to runs")
    kubeflow_api: str = Field("http://ml-pipeline.kubeflow:8888", description="address of its API, from a pod")
    tracking_uri: str = Field(
        "", validation_alias="MLFLOW_TRACKING_URI", description="empty: sqlite in the state folder"
    )

    @property
    def state(self) -> Path:
        """The state folder, absolute."""
        return (self.volume if self.volume and self.volume.is_dir() else self.home).expanduser().absolute()

    def kubeflow_page(self, run_id: str) -> str:
        """The address of a run's page in Kubeflow; ``""`` where ``kubeflow_url`` is not set."""
        return f"{self.kubeflow_url.rstrip('/')}/#/runs/details/{run_id}" if self.kubeflow_url else ""

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


def locate(name: str, value: str) -> str:
    """A source as steps understand it, which run in folders of their own: paths of this machine absolute.

    Raises ``ConfigError`` naming the parameter ``name`` where there is no such file or folder.
    """
    if not value or value in NAMED_SOURCES or "://" in value:
        return value
    path = Path(value).expanduser()
    if not path.exists():
        wanted = {
            "data_source": "a folder or archive of pictures or of CIFAR-10 batches, a URI such as s3://bucket/folder, "
            "or 'sample' or 'cifar10'",
            "data_mask_source": "a folder or archive of masks, white = hole",
            "data_reference": "the folder of a dataset that prepare wrote",
        }
        raise ConfigError(f"{name}: there is no file or folder {value!r}; give {wanted[name]}")
    return str(path.absolute())


def sections() -> Iterator[tuple[str, type[Section]]]:
    """The sections of a run by prefix, in the order of ``PipelineConfig``."""
    for section, field in PipelineConfig.model_fields.items():
        yield section, cast(type[Section], field.annotation)


def _flat_fields() -> Iterator[tuple[str, str, str]]:
    for section, model in sections():
        for name in model.parameter_fields():
            yield f"{section}_{name}", section, name


def _sentences(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        name = "_".join(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        whole = isinstance(problem["input"], dict)  # a rule about several fields names them itself
        yield reason if whole else f"{name} = {problem['input']!r}: {reason[0].lower()}{reason[1:]}"
