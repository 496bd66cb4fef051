"""Make the README's picture: a test photograph under scratches and text, repaired by the champion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from components.config import Settings
from components.inpainting.images import grid
from components.inpainting.masks import damage, draw_masks
from pipelines.champion import fetch_champion


def main() -> None:
    """Write ``docs/repair.png`` from the champion of the state folder."""
    from skimage import data

    photo, rng = data.chelsea(), np.random.default_rng(4)  # held out from training by the sample preset
    height, width = photo.shape[:2]
    damaged, mask = photo, np.zeros((height, width), np.uint8)
    for family in ("scratches", "text", "strokes"):
        holes = draw_masks(family, 1, max(height, width), rng)[0][:height, :width]
        damaged, mask = damage(damaged, holes, family, rng), mask | holes
    repaired = fetch_champion(Settings(), "kintsugi").open()(damaged, mask)
    shown = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    sheet = grid([[damaged, shown, repaired]], ["damaged", "mask (white = hole)", "repaired"], gap=6)
    Image.fromarray(sheet).save(Path(__file__).parent / "repair.png", optimize=True)


if __name__ == "__main__":
    main()
