"""Sample repairs of the same validation pictures and holes, taken at intervals while training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Bytes, composite, encode_png, grid, to_bytes, to_planes
from components.inpainting.metrics import score_each, sharpness
from components.inpainting.networks import Generator
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
        """Repair the validation pictures: log scores, write ``step-<step>.png``, log the pictures."""
        generator.eval()
        repairs = {family: self._repair(generator, family) for family in self._data.families}
        scores: dict[str, float] = {}
        for family, repaired in repairs.items():
            truths, masks = np.asarray(self._val.images), self._val.masks(family)
            each = score_each(repaired, truths, masks) | {"sharpness": sharpness(repaired, truths, masks)}
            for name, values in each.items():
                scores[f"val/{name}/{family}"] = float(values.mean())
        self._run.log_metrics(scores, step)
        self._write_grid(repairs, step)

    def _repair(self, generator: Generator, family: str) -> Bytes:
        truth, mask = np.asarray(self._val.images), self._val.masks(family)
        device = next(generator.parameters()).device
        with torch.inference_mode():
            image = torch.from_numpy(to_planes(truth)).to(device)
            holes = torch.from_numpy(mask[:, None].astype(np.float32)).to(device)
            repaired = generator(image * (1 - holes), holes)
        return composite(truth, to_bytes(repaired.cpu().numpy()), mask)

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
