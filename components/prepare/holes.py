"""The fixed holes of validation and test pictures, and a user's own masks."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from components.config import ConfigError, DataConfig
from components.inpainting.damage import render_damage
from components.inpainting.dataset import Shards, Split, npy_writer
from components.inpainting.images import Bytes, ImageError, decode_mask
from components.inpainting.masks import MaskMixture
from components.prepare.entries import VanishedError, read_entry
from components.prepare.sources import Source, open_source

_MIN_MASKS = 10  # fewer are not split: training and evaluation share them
_EVALUATION_SHARE = 0.2
_BLOCK = 128


def write_holes(folder: Path, mixture: MaskMixture, seed: int) -> dict[str, str]:
    """Write one fixed mask and damage per picture and family of a split; returns the digest of each family's holes."""
    split = Split(folder)
    index, digests = split.index, {}
    keys = [[seed, int(row["sha256"][:12], 16), row["crop"]] for row in index]
    for family in mixture.weights:
        digest = hashlib.sha256()
        shape = (len(index), mixture.size, mixture.size)
        with npy_writer(folder / f"masks-{family}.npy", shape) as masks_file, npy_writer(
            folder / f"damaged-{family}.npy", (*shape, 3)
        ) as damaged_file:  # fmt: skip
            for start in range(0, len(index), _BLOCK):
                masks = mixture.draw_fixed(family, keys[start : start + _BLOCK])
                damaged = np.stack(list(_damage(split.images, masks, start, keys, family)))
                for file, block in ((masks_file, masks), (damaged_file, damaged)):
                    file.write(block.tobytes())
                    digest.update(block.tobytes())
        digests[f"{folder.name}/{family}"] = digest.hexdigest()
    return digests


def _damage(images: Shards, masks: Bytes, start: int, keys: list[list[int]], family: str) -> Iterator[Bytes]:
    """The damaged pictures; the next picture, upside down, is what may show through."""
    for number, mask in enumerate(masks, start):
        rng = np.random.default_rng([zlib.crc32(f"damage {family}".encode()), *keys[number]])
        yield render_damage(images[number], mask, family, rng, images[(number + 1) % len(images)][::-1])


def read_masks(config: DataConfig, work: Path, downloads: Path) -> tuple[Bytes | None, Bytes | None]:
    """The user's masks for training and for evaluation, uint8 ``M,H,W``; ``None`` where none are asked for.

    They are split by content, so that no mask is trained on and tested with, unless there are too few.
    Raises ``ConfigError`` for a source without masks, and naming a mask that cannot be used.
    """
    if not config.mask_source:
        return None, None
    place = DataConfig(source=config.mask_source, classes="all", code_version=config.code_version)
    try:
        source = open_source(place, work / "masks", downloads)
        found = dict(_read_each(source, work / "masks", config.image_size))
    except ConfigError as error:
        raise ConfigError(str(error).replace("data_source", "data_mask_source")) from None
    if not found:
        raise ConfigError(
            f"data_mask_source: {config.mask_source!r} holds no mask with both white (hole) and black in it; give "
            "pictures such as PNG files, white = hole"
        )
    ordered = [found[digest] for digest in sorted(found)]
    if len(ordered) < _MIN_MASKS:
        return np.stack(ordered), np.stack(ordered)
    held = [int(digest[:15], 16) / 16**15 < _EVALUATION_SHARE for digest in sorted(found)]
    held[0], held[-1] = True, False  # neither side stays empty
    masks = np.stack(ordered)
    return masks[~np.array(held)], masks[np.array(held)]


def _read_each(source: Source, work: Path, size: int) -> Iterator[tuple[str, Bytes]]:
    for entry in source.entries():
        if entry.problem:
            raise ConfigError(f"data_mask_source: {entry.name}: {entry.problem}; remove it")
        try:
            content = read_entry(entry, work)
            mask = decode_mask(content)
        except (ImageError, VanishedError) as error:
            if not entry.certain:
                continue
            raise ConfigError(f"data_mask_source: {entry.name}: {error}") from None
        side = min(mask.shape)
        top, left = ((whole - side) // 2 for whole in mask.shape)
        square = Image.fromarray(mask[top : top + side, left : left + side] * 255)
        small = (np.asarray(square.resize((size, size), Image.Resampling.BOX)) >= 128).astype(np.uint8)
        if 0 < small.sum() < small.size:
            yield hashlib.sha256(small.tobytes()).hexdigest(), small
