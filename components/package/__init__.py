"""The package step: a registered generator becomes an ONNX engine inside a Bento."""

from __future__ import annotations

import tempfile
from pathlib import Path

from components.config import ServeConfig, Settings
from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import encode_png
from components.inpainting.inpainter import open_onnx, wrap_generator
from components.inpainting.networks import load_generator
from components.manifest import Manifest, complete_folder, read_manifest, write_json
from components.package.bento import BENTO_FILE, build_bento
from components.package.export import check_parity, export_onnx, golden_cases
from components.progress import say, step
from components.tracking import Registry, open_run

KIND = "bento"


@step("package")
def package(config: ServeConfig, version: str, dataset: Path, bento: Path, settings: Settings) -> Manifest:
    """Export a registered version, prove that the export repairs alike, and build a Bento around it.

    Writes a folder with ``kintsugi.bento``, ``parity.json`` and ``golden/`` (pictures, masks and what
    the trainer's own network makes of them, for ``verify``). The Bento is logged to the version's run.
    Raises ``ParityError`` when torch and ONNX Runtime disagree.
    """
    registry = Registry(settings, config.model_name)
    found = registry.get(version)
    generator = load_generator(registry.download(found))
    cases = golden_cases(PreparedDataset.open(dataset))
    with tempfile.TemporaryDirectory(prefix="kintsugi-package-") as scratch, complete_folder(bento, KIND) as draft:
        engine = Path(scratch) / "generator.onnx"
        say("exporting to ONNX")
        export_onnx(generator, engine)
        parity = check_parity(wrap_generator(generator), open_onnx(engine, generator.stride), cases)
        write_json(draft.path / "parity.json", parity)
        golden = draft.path / "golden"
        golden.mkdir()
        for case in cases:
            for name, picture in case.with_expected(wrap_generator(generator)).items():
                (golden / f"{case.name}-{name}.png").write_bytes(encode_png(picture))
        provenance = {
            "name": config.model_name, "version": version, "digest": found.tags["digest"], "run_id": found.run_id,
            "dataset": found.tags["dataset"], "architecture": found.tags["architecture"], "scores": found.scores,
            "code": found.tags["code"], "stride": generator.stride,
        }  # fmt: skip
        say("building the Bento")
        tag = build_bento(engine, provenance, Path(scratch), draft.path / BENTO_FILE)
        draft.made_from = {"model": found.tags["digest"], "dataset": found.tags["dataset"]}
        draft.facts = {"tag": tag, "version": version, "max_difference": max(p["max_difference"] for p in parity)}
    open_run(settings, found.run_id).log_file(bento / BENTO_FILE, KIND)
    registry.tag(version, {"bento": tag})
    say(f"packaged {tag}")
    return read_manifest(bento, KIND)
