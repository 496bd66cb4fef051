"""One call to repair a picture, whatever does the work: ONNX Runtime, torch or a classical method.

Importing this module loads numpy and Pillow only; an engine loads its library when it is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.inpainting.images import Bytes, Floats, check_pair, check_sizes
from components.inpainting.repairing import Fill, Map, find_damage, repair_blindly, repair_picture

if TYPE_CHECKING:
    from components.inpainting.networks import Generator
    from components.inpainting.networks.blind_unet import BlindUNet

Inpainter = Callable[[Bytes, Bytes], Bytes]
"""Repairs uint8 ``H,W,3`` where the mask, uint8 ``H,W``, is 1; a blind one, under an empty mask, repairs what damage
it finds. Raises ``ImageError`` on unequal sizes."""


def open_onnx(path: Path, stride: int, *, blind: bool = False) -> Inpainter:
    """An inpainter that runs an exported generator on all the cores it may use; ``blind``: it finds damage itself.

    See ``engines.open_engine`` for quicker ways to run one.
    """
    session = open_session(path, usable_cores())

    def fill(image: Floats, mask: Floats) -> Floats:
        filled: Floats = session.run(["repair"], {"image": image, "mask": mask})[0]
        return filled

    return lambda image, mask: inpaint(image, mask, fill, stride, blind=blind)


def open_session(path: Path, threads: int) -> Any:
    """An ONNX Runtime session that computes on so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # every picture has another size; the arena would keep the sum of them
    options.log_severity_level = 3  # errors: what it warns of is how torch exports
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def usable_cores() -> int:
    """Cores this process may use, a container's limit included; more threads than that make everything crawl."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))  # "max", no number, is no limit
    return cores


def wrap_generator(generator: Generator) -> Inpainter:
    """An inpainter that runs a torch generator, on the device it lives on."""
    import torch

    device = next(generator.parameters()).device

    def fill(image: Floats, mask: Floats) -> Floats:
        with torch.inference_mode():
            filled = generator(torch.from_numpy(image).to(device), torch.from_numpy(mask).to(device))
        planes: Floats = filled.cpu().numpy()
        return planes

    return lambda image, mask: inpaint(image, mask, fill, generator.stride, blind=generator.blind)


def wrap_finder(generator: BlindUNet) -> Callable[[Bytes], Bytes]:
    """What a blind generator takes for damage: uint8 ``H,W,3`` to ``H,W`` of 0 and 1."""
    import torch

    device = next(generator.parameters()).device

    def find(image: Floats, mask: Floats) -> Floats:
        with torch.inference_mode():
            likely: Floats = generator.find(torch.from_numpy(image).to(device)).cpu().numpy()
        return likely

    return lambda image: find_damage(image, find, generator.stride)


def open_classical(method: str) -> Inpainter:
    """An inpainter that runs a method of ``classical.METHODS``, see there."""
    from components.inpainting.classical import repair

    def repair_pair(image: Bytes, mask: Bytes) -> Bytes:
        check_pair(image, mask)
        return repair(method, image, mask)

    return repair_pair


def inpaint(image: Bytes, mask: Bytes, fill: Fill, stride: int, *, blind: bool, run: Map = map) -> Bytes:
    """Repair with a network, see ``Inpainter`` and ``repair_picture``."""
    if blind and not mask.any():
        check_sizes(image, mask)
        return repair_blindly(image, fill, stride, run)
    check_pair(image, mask)
    return repair_picture(image, mask, fill, stride, run)
