"""The prepare step: photographs in, a dataset with fixed evaluation holes out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from components.config import DataConfig, Settings
from components.inpainting.dataset import KIND
from components.inpainting.images import Bytes, resize
from components.inpainting.masks import damage, draw_masks
from components.manifest import Draft, Manifest, complete_folder, read_manifest, write_file
from components.prepare.card import render_card
from components.prepare.sources import Photo, Splits, open_source
from components.progress import say, step, track

_CROP_SCALES = (1.5, 6.0)  # crops are this many times the picture size before they are scaled down


@step("prepare")
def prepare(config: DataConfig, dataset: Path, card: Path, settings: Settings) -> Manifest:
    """Write a dataset folder and its card (HTML), and return its manifest."""
    splits = open_source(config, settings.downloads)
    with complete_folder(dataset, KIND) as draft:
        counts = {
            split: _write_split(draft.path / split, splits[split], limit, config)
            for split, limit in (("train", config.num_train), ("val", config.num_val), ("test", config.num_test))
        }
        _write_facts(draft, config, splits, counts)
    manifest = read_manifest(dataset, KIND)
    write_file(card, render_card(dataset, manifest))
    say(f"dataset {manifest.digest[:12]}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))
    return manifest


def _write_split(folder: Path, photos: list[Photo], limit: int, config: DataConfig) -> int:
    folder.mkdir()
    kept = sorted(photos, key=lambda photo: photo.sha256)[:limit]
    crops_each = -(-limit // len(kept))
    pictures: list[Bytes] = []
    rows: list[dict[str, Any]] = []
    for photo in track(kept, f"prepare {folder.name}", len(kept)):
        for picture in _pictures(photo, config, crops_each):
            pictures.append(picture)
            rows.append({"photo": photo.name, "class_name": photo.class_name, "sha256": photo.sha256})
    order = np.random.default_rng([config.seed, 1]).permutation(len(pictures))[:limit]
    images = np.stack([pictures[i] for i in order])
    np.save(folder / "images.npy", images)
    (folder / "index.jsonl").write_text("".join(json.dumps(rows[i]) + "\n" for i in order))
    if folder.name != "train":
        _write_holes(folder, images, config)
    return len(images)


def _pictures(photo: Photo, config: DataConfig, count: int) -> list[Bytes]:
    """The picture itself where it has the wanted size already, else random square crops scaled to it."""
    pixels, size = photo.read(), config.image_size
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return [pixels]
    rng = np.random.default_rng([config.seed, int(photo.sha256[:12], 16)])
    crops = []
    for _ in range(count):
        side = min(height, width, round(size * float(np.exp(rng.uniform(*np.log(_CROP_SCALES))))))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        crops.append(resize(pixels[top : top + side, left : left + side], size, size))
    return crops


def _write_holes(folder: Path, images: Bytes, config: DataConfig) -> None:
    for number, family in enumerate(config.mask_families):
        rng = np.random.default_rng([config.seed, 2, number])
        masks = draw_masks(family, len(images), config.image_size, rng, box_size=config.box_size)
        np.save(folder / f"masks-{family}.npy", masks)
        pairs = zip(images, masks, strict=True)
        np.save(folder / f"damaged-{family}.npy", np.stack([damage(i, m, family, rng) for i, m in pairs]))


def _write_facts(draft: Draft, config: DataConfig, splits: Splits, counts: dict[str, int]) -> None:
    digests = sorted(photo.sha256 for photos in splits.values() for photo in photos)
    draft.made_from = {"photographs": hashlib.sha256("".join(digests).encode()).hexdigest()}
    draft.facts = {
        "source": config.source,
        "image_size": config.image_size,
        "box_size": config.box_size,
        "families": list(config.mask_families),
        "seed": config.seed,
        "counts": counts,
        "photos": {split: len(photos) for split, photos in splits.items()},
    }
