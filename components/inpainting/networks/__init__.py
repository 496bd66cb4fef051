"""The networks by name, and a generator on disk: ``config.json`` and ``generator.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from components.inpainting.networks.blind_unet import BlindUNet
from components.inpainting.networks.context_encoder import ContextEncoder
from components.inpainting.networks.residual_unet import ResidualUNet

Generator = ResidualUNet | BlindUNet | ContextEncoder

GENERATORS: dict[str, type[ResidualUNet] | type[BlindUNet] | type[ContextEncoder]] = {
    "residual_unet": ResidualUNet,
    "blind_unet": BlindUNet,
    "context_encoder": ContextEncoder,
}
WEIGHTS, CONFIG = "generator.safetensors", "config.json"


class ModelFileError(ValueError):
    """A model folder is damaged or does not fit this code."""


def build_generator(name: str, **settings: Any) -> Generator:
    """A fresh generator by its name in ``GENERATORS``, with ``settings`` other than its defaults."""
    return GENERATORS[name](**settings)


def name_of(generator: Generator) -> str:
    """The name of a generator in ``GENERATORS``."""
    return next(name for name, kind in GENERATORS.items() if type(generator) is kind)


def save_generator(generator: Generator, folder: Path) -> None:
    """Write ``config.json`` and ``generator.safetensors``."""
    config = {"model": name_of(generator), "settings": generator.settings}
    (folder / CONFIG).write_text(json.dumps(config, indent=2))
    save_file({name: value.cpu().contiguous() for name, value in generator.state_dict().items()}, folder / WEIGHTS)


def load_generator(folder: Path) -> Generator:
    """Read a generator, in evaluation mode, on the CPU. Raises ``ModelFileError`` when it cannot be used."""
    try:
        config = json.loads((folder / CONFIG).read_text())
        generator = GENERATORS[config["model"]](**config["settings"])
        generator.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelFileError(f"{folder} holds no usable generator ({error}); train it again") from None
    return generator.eval()
