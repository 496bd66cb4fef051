"""The run form: which parameters it shows, what presets and overrides add, and how a run is written down in it.

A value that was changed in the form wins over the presets, and ``run_overrides`` over both; it reaches
every parameter that the form does not show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from components.config import ConfigError, Parameter, PipelineConfig, sections, split_names, suggestion
from components.pools import POOLS

Preset = Literal["sample", "cifar", "photographs", "paper"]
Mode = Literal["standard", "fidelity", "realism", "blind"]

SHOWN = (
    "data_source", "data_classes", "data_image_size", "data_masks",
    "train_model", "train_steps", "train_batch_size", "train_learning_rate", "train_num_processes", "train_num_nodes",
    "gate_mode", "gate_min_ssim", "gate_max_mse", "serve_model_name",
    "run_gpu", "run_spot", "run_volume", "run_webhook",
)  # fmt: skip
"""The parameters of the configuration that have a field of their own."""
_FIELD_ALONE = ("run_volume", "run_webhook")  # the cluster reads them before any step could look into overrides
_OWN: dict[str, tuple[Parameter, str]] = {
    "run_preset": ("sample", "values for a kind of pictures, listed below the parameters; what is changed here wins"),
    "run_mode": ("standard", "how to repair, on top of run_preset; standard: as the preset has it"),
    "run_overrides": ("", "any parameter, as in train_seed=3, data_masks=box:2,text; wins over everything else"),
}
_NEXT_NAME = re.compile(r"[,;\n]\s*(?=[a-z]+_[a-z0-9_]+\s*=)")
_FOLDER = Path(__file__).parent / "presets"


def presets() -> dict[str, Path]:
    """All presets by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def load_preset(names: str) -> dict[str, Parameter]:
    """Read presets, YAML files of flat parameters; of several, as in ``cifar,realism``, the later ones win.

    Raises ``ConfigError`` for an unknown name.
    """
    known, content = presets(), dict[str, Parameter]()
    for name in split_names(names):
        if name not in known:
            raise ConfigError(f"unknown preset {name!r}{suggestion(name, known)}")
        content |= yaml.safe_load(known[name].read_text()) or {}
    return content


def parse_assignments(assignments: list[str], where: str = "--set") -> dict[str, Parameter]:
    """Parse ``name=value`` pairs; the configuration turns values into numbers."""
    parsed: dict[str, Parameter] = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise ConfigError(f"cannot read {where} {assignment!r}; write name=value, e.g. train_steps=300")
        parsed[name.strip()] = value
    return parsed


def defaults() -> dict[str, Parameter]:
    """The form as it opens: every field with its default, in the order in which ``plan`` takes them."""
    flat = PipelineConfig().flat()
    return {name: flat[name] for name in SHOWN} | {name: default for name, (default, _) in _OWN.items()}


def choices(name: str) -> list[str]:
    """What the form's dropdown of a field offers; empty where any text goes."""
    own: dict[str, Any] = {"run_preset": Preset, "run_mode": Mode, "run_overrides": str}
    kind = own[name] if name in own else _fields()[name].annotation
    return [str(value) for value in get_args(kind)] if get_origin(kind) is Literal else []


def resolve(form: Mapping[str, Any]) -> tuple[PipelineConfig, dict[str, str]]:
    """The run that a filled form asks for, and who set each parameter that is not at its default.

    Raises ``ConfigError`` naming every parameter that is wrong.
    """
    opened = defaults()
    _require_known(form, opened)
    values = opened | dict(form)
    preset, mode = str(values.pop("run_preset")), str(values.pop("run_mode"))
    overrides = _parse_overrides(str(values.pop("run_overrides")))
    layers: list[tuple[str, Mapping[str, Parameter]]] = [
        (f"preset {preset}", load_preset(_choice("run_preset", preset))),
        (f"mode {mode}", load_preset("" if _choice("run_mode", mode) == "standard" else mode)),
        ("the form", {name: value for name, value in values.items() if value != opened[name]}),
        ("run_overrides", overrides),
    ]
    flat: dict[str, Parameter] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        flat |= layer
        origins |= dict.fromkeys(layer, origin)
    config = PipelineConfig.from_flat(flat)
    untouched = PipelineConfig().flat()
    return config, {name: origins[name] for name, value in config.flat().items() if value != untouched[name]}


def fill(config: PipelineConfig, names: str = "") -> dict[str, Parameter]:
    """The form, filled so that ``resolve`` finds this run in it; ``names`` are the presets that it was made with."""
    chosen = split_names(names)
    preset = next((name for name in reversed(chosen) if name in get_args(Preset)), "sample")
    mode = next((name for name in reversed(chosen) if name in get_args(Mode)), "standard")
    form = defaults() | {"run_preset": preset, "run_mode": mode}
    base, opened, overrides = resolve(form)[0].flat(), defaults(), {}
    for name, wanted in config.flat().items():
        if wanted == base[name]:
            continue
        if name in SHOWN and wanted != opened[name]:
            form[name] = wanted
        else:
            overrides[name] = wanted
    form["run_overrides"] = ", ".join(f"{name}={_text(value)}" for name, value in overrides.items())
    return form


def guide() -> str:
    """Every parameter with its default and meaning, as text: the form's fields first."""
    lines = ["FIELDS OF THE FORM"]
    for name, default, values, meaning in rows(shown=True):
        lines.append(f"- {name} (default {default!r}{', one of ' + values if values else ''}): {meaning}")
    lines += ["", "PRESETS"]
    lines += [f"- {name}: {_headline(name)}" for name in presets()]
    lines += ["", "MORE PARAMETERS, FOR run_overrides"]
    lines += [f"- {name} (default {default!r}): {meaning}" for name, default, _, meaning in rows(shown=False)]
    return "\n".join(lines)


def rows(*, shown: bool) -> Iterator[tuple[str, Parameter, str, str]]:
    """Name, default, choices and meaning of the parameters that the form shows, or of the others."""
    if shown:
        for name, (default, meaning) in _OWN.items():
            yield name, default, " | ".join(choices(name)), meaning
    for name, info in _fields().items():
        if (name in SHOWN) == shown:
            yield name, info.default, " | ".join(choices(name)), info.description or ""


def document() -> str:
    """``docs/parameters.md``."""
    parts = [
        "# Parameters",
        "Generated by `kintsugi parameters`. The run form in the Kubeflow UI, `--set name=value` and the presets speak "
        "these names. A value that is changed in the form wins over the presets, and `run_overrides` over both.",
        "## In the form", _table(rows(shown=True)),
        "## By `run_overrides`",
        "In the form as `train_seed=3, data_masks=box:2,text`; at the command line like any other.",
        _table(rows(shown=False)),
        "## Presets",
        "`run_preset` and `run_mode` in the form, `--preset cifar,realism` at the command line.",
        "\n".join(["| preset | | sets |", "|---|---|---|", *map(_preset_row, presets())]),
        "## GPU profiles", "What `run_gpu` asks Kubernetes for, `train_num_processes` cards of it on every node.",
        "\n".join(["| run_gpu | node label | card | GB | |", "|---|---|---|---|---|", *_pool_rows()]),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _table(parameters: Iterator[tuple[str, Parameter, str, str]]) -> str:
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for name, default, values, meaning in parameters:
        text = meaning + (f"; one of {values}" if values else "")
        lines.append(f"| `{name}` | `{_text(default) or ' '}` | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def _preset_row(name: str) -> str:
    values = ", ".join(f"`{key}={_text(value)}`" for key, value in load_preset(name).items())
    return f"| `{name}` | {_headline(name)} | {values} |"


def _pool_rows() -> Iterator[str]:
    for name, pool in POOLS.items():
        yield f"| `{name}` | `{pool.accelerator}` | {pool.capability} | {pool.memory_gb} | {pool.note} |"
    yield "| `none` | | | | any node, no card |"


def _headline(preset: str) -> str:
    """The comment at the top of a preset."""
    lines = presets()[preset].read_text().splitlines()
    return " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))


def _text(value: Parameter) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choice(name: str, value: str) -> str:
    known = choices(name)
    if value not in known:
        raise ConfigError(f"{name} = {value!r}{suggestion(value, known)}")
    return value


def _require_known(form: Mapping[str, Any], known: Mapping[str, Parameter]) -> None:
    for name in form:
        if name not in known:
            raise ConfigError(f"the form has no field {name!r}{suggestion(name, known)}")


def _parse_overrides(text: str) -> dict[str, Parameter]:
    parts = [part.strip(" ,;\n") for part in _NEXT_NAME.split(text)]
    parsed = parse_assignments([part for part in parts if part], "run_overrides")
    for name in parsed:
        if name in _FIELD_ALONE or name in _OWN:
            raise ConfigError(f"run_overrides cannot set {name}; it has a field of its own")
    return parsed


def _fields() -> dict[str, Any]:
    return {
        f"{section}_{name}": model.model_fields[name]
        for section, model in sections()
        for name in model.parameter_fields()
    }
