"""The package step: a registered generator becomes the engine inside a Bento."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from components.config import ServeConfig, Settings
from components.inpainting.dataset import PreparedDataset
from components.inpainting.export import ENGINE
from components.inpainting.images import encode_png
from components.inpainting.inpainter import open_onnx, wrap_generator
from components.inpainting.networks import load_generator
from components.manifest import Manifest, complete_folder, read_manifest, write_json
from components.package.bento import BENTO_FILE, build_bento
from components.package.parity import Case, check_parity, golden_cases
from components.progress import Bar, say, step
from components.tracking import Registry, Version, open_run

KIND = "bento"


@step("package")
def package(config: ServeConfig, version: str, dataset: Path, bento: Path, settings: Settings) -> Manifest:
    """Take the export of a registered version that was measured, prove that it repairs alike, build a Bento around it.

    Writes a folder with ``kintsugi.bento``, ``parity.json`` and ``golden/`` (pictures, masks and what
    the trainer's own network makes of them, for ``verify``). The Bento is logged to the version's run.
    Raises ``ParityError`` when torch and ONNX Runtime disagree.
    """
    registry = Registry(settings, config.model_name)
    found = registry.get(version)
    generator = load_generator(registry.download(found))
    with (
        Bar("package", 3) as bar,
        tempfile.TemporaryDirectory(prefix="kintsugi-package-") as scratch,
        complete_folder(bento, KIND) as draft,
    ):
        engine = registry.download(found, f"evaluation/{ENGINE}")
        bar.advance()
        cases = golden_cases(PreparedDataset.open(dataset), wrap_generator(generator))
        parity = check_parity(open_onnx(engine, generator.stride, blind=generator.blind), cases)
        write_json(draft.path / "parity.json", parity)
        _write_golden(draft.path / "golden", cases)
        bar.advance()
        say("building the Bento")
        tag = build_bento(engine, _provenance(found, generator.stride), Path(scratch), draft.path / BENTO_FILE)
        bar.advance()
        draft.made_from = {"model": found.tags["digest"], "dataset": found.tags["dataset"]}
        draft.facts = {"tag": tag, "version": version, "max_difference": max(p["max_difference"] for p in parity)}
    open_run(settings, found.run_id).log_file(bento / BENTO_FILE, KIND)
    registry.tag(version, {"bento": tag, "verified": ""})
    say(f"packaged {tag}")
    return read_manifest(bento, KIND)


def _write_golden(folder: Path, cases: list[Case]) -> None:
    folder.mkdir()
    for case in cases:
        pictures = {"image": case.image, "mask": case.mask * np.uint8(255), "expected": case.expected}
        for name, picture in pictures.items():
            (folder / f"{case.name}-{name}.png").write_bytes(encode_png(picture))


def _provenance(version: Version, stride: int) -> dict[str, Any]:
    """What the served model says of itself."""
    copied = {name: version.tags[name] for name in ("digest", "dataset", "architecture", "code")}
    own = {"name": version.name, "version": version.number, "run_id": version.run_id, "scores": version.scores}
    return {**own, **copied, "stride": stride}
