"""Sample repairs of the same validation pictures and holes, taken at intervals while training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Bytes, composite, encode_png, grid, to_bytes, to_planes
from components.inpainting.metrics import mask_scores, score_each
from components.inpainting.networks import Generator
from components.inpainting.networks.blind_unet import BlindUNet
from components.inpainting.scores import HEADLINES
from components.manifest import write_file
from components.tracking import Run

_NUM_ROWS = 6


class Samples:
    """Takes sample grids into ``folder`` and into MLflow, with validation scores per family."""

    def __init__(self, data: PreparedDataset, folder: Path, run: Run) -> None:
        self._data, self.folder, self._run = data, folder, run
        self._val = data.split("val")
        folder.mkdir(exist_ok=True)

    def has(self, step: int) -> bool:
        """Whether the samples of a step are taken."""
        return self._path(step).exists()

    def take(self, generator: Generator, step: int) -> None:
        """Repair the validation pictures: log scores, write ``step-<step>.png``, log the pictures.

        A blind generator is shown the damaged pictures and no masks, and nothing is pasted over what it makes of them.
        """
        generator.eval()
        truths = np.asarray(self._val.images)
        repairs: dict[str, Bytes] = {}
        scores: dict[str, float] = {}
        for family in self._data.families:
            masks = self._val.masks(family)
            if isinstance(generator, BlindUNet):
                repairs[family], found = self._repair_blindly(generator, family)
                each = mask_scores(found, masks)
            else:
                repairs[family], each = self._repair(generator, truths, masks), {}
            each |= score_each(repairs[family], truths, masks)
            scores |= {f"val/{name}/{family}": float(each[name].mean()) for name in HEADLINES if name in each}
        self._run.log_metrics(scores, step)
        self._write_grid(repairs, step)

    def _repair(self, generator: Generator, truths: Bytes, masks: Bytes) -> Bytes:
        device = next(generator.parameters()).device
        with torch.inference_mode():
            image = torch.from_numpy(to_planes(truths)).to(device)
            holes = torch.from_numpy(masks[:, None].astype(np.float32)).to(device)
            repaired = generator(image * (1 - holes), holes)
        return composite(truths, to_bytes(repaired.cpu().numpy()), masks)

    def _repair_blindly(self, generator: BlindUNet, family: str) -> tuple[Bytes, Bytes]:
        """Whole pictures and the damage found in them, uint8 ``N,H,W,3`` and ``N,H,W``."""
        device = next(generator.parameters()).device
        with torch.inference_mode():
            image = torch.from_numpy(to_planes(np.asarray(self._val.damaged(family)))).to(device)
            repaired, logits = generator.core(image, torch.zeros_like(image[:, :1]))
        return to_bytes(repaired.cpu().numpy()), (logits[:, 0] > 0).to(torch.uint8).cpu().numpy()

    def _write_grid(self, repairs: dict[str, Bytes], step: int) -> None:
        families = self._data.families
        rows = []
        for i in range(min(_NUM_ROWS, len(self._val.images))):
            family = families[i % len(families)]
            row = [self._val.images[i], self._val.damaged(family)[i], repairs[family][i]]
            rows.append(row)
            self._run.log_image(row[-1], f"val/{i}_{family}", step)
        sheet = grid(rows, ["truth", "damaged", "repaired"], scale=max(1, 128 // self._data.image_size))
        self._run.log_image(sheet, "samples", step)
        write_file(self._path(step), encode_png(sheet))  # last: the mark that all of it is done

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}.png"
