"""Make the README's picture: a test photograph under scratches, cracks and text, repaired by the champion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from components.config import Settings
from components.inpainting.damage import render_damage
from components.inpainting.images import grid
from components.inpainting.masks import FAMILIES
from pipelines.champion import champion_client


def main() -> None:
    """Write ``docs/repair.png`` from the champion of the state folder."""
    from skimage import data

    photo, rng = data.chelsea(), np.random.default_rng(4)  # held out from training by the sample preset
    height, width = photo.shape[:2]
    damaged, mask = photo, np.zeros((height, width), np.uint8)
    for family, share in (("scratches", 0.02), ("cracks", 0.01), ("text", 0.07)):
        holes = FAMILIES[family].draw(max(height, width), share, rng)[:height, :width]
        damaged, mask = render_damage(damaged, holes, family, rng, photo), mask | holes
    white = mask * np.uint8(255)
    with champion_client(Settings(), "kintsugi") as (client, _):
        repaired = client.inpaint(damaged, white).pixels
    shown = np.repeat(white[..., None], 3, axis=2)
    sheet = grid([[damaged, shown, repaired]], ["damaged", "mask (white = hole)", "repaired"], gap=6)
    Image.fromarray(sheet).save(Path(__file__).parent / "repair.png", optimize=True)


if __name__ == "__main__":
    main()
