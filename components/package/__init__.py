"""The package step: a registered generator, and a blind one beside it, become the engines inside a Bento."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.config import ServeConfig, Settings
from components.inpainting.dataset import PreparedDataset
from components.inpainting.export import ENGINE
from components.inpainting.images import encode_png
from components.inpainting.inpainter import wrap_finder, wrap_generator
from components.inpainting.networks import Generator, load_generator
from components.inpainting.networks.blind_unet import BlindUNet
from components.inpainting.scores import Decision
from components.inpainting.tolerance import MIN_AGREEMENT, min_ssim
from components.manifest import Manifest, complete_folder, file_digest, read_manifest, write_file, write_json
from components.package.bento import BENTO_FILE, BLIND, MODEL, PROVENANCE, Packed, build_bento
from components.package.opening import finds_damage, prove_fastest
from components.package.parity import (
    Case,
    ParityError,
    Row,
    blind_cases,
    check_batches,
    golden_cases,
)
from components.progress import Bar, say, step
from components.report import render
from components.tracking import Registry, RegistryError, Version, bento_folder, open_run

KIND = "bento"
GOLDEN, CASES = "golden", "cases.json"


@dataclass(frozen=True)
class Proved:
    """A model whose export was compared with its network: what goes into the Bento, and how far they are apart."""

    packed: Packed
    rows: list[Row]
    cases: list[Case]


@step("package")
def package(
    config: ServeConfig, version: str, dataset: Path, bento: Path, report: Path, settings: Settings
) -> Manifest:
    """Take the export of a registered version that was measured, prove that it repairs alike, build a Bento around it.

    The champion of ``config.paired``, where there is one, comes along for pictures without a mask. Writes an HTML
    report and a folder with ``kintsugi.bento``, ``provenance.json``, ``parity.json`` and ``golden/`` (pictures, masks
    and what the trainer's own network makes of them, for ``verify``). The Bento, its report and what the server says of
    the model go to the version's run. Raises ``ParityError`` when torch and the export disagree.
    """
    registry, data = Registry(settings, config.model_name), PreparedDataset.open(dataset)
    found = registry.get(version)
    with Bar("package", 3) as bar, complete_folder(bento, KIND) as draft:
        models = {MODEL: _prove(registry, found, data, f"evaluation/{ENGINE}")}
        bar.advance()
        if not models[MODEL].packed.provenance["blind"] and (paired := _paired(config, settings)):
            models[BLIND] = _prove(*paired, data, f"{paired[1].bento_folder}/{ENGINE}")
        bar.advance()
        tag = _write(models, draft.path)
        bar.advance()
        tolerance = max(model.packed.provenance["engine"]["tolerance"] for model in models.values())
        worst = max(row.max_difference for model in models.values() for row in model.rows)
        draft.made_from = {"model": found.tags["digest"], "dataset": found.tags["dataset"]}
        draft.facts = {"tag": tag, "version": version, "max_difference": worst, "tolerance": tolerance}
    write_file(report, render("parity.html", title=f"Does {tag} repair as it was trained?", **_reported(models)))
    run, files = open_run(settings, found.run_id), [bento / BENTO_FILE, bento / PROVENANCE, models[MODEL].packed.engine]
    for file in files:
        run.log_file(file, bento_folder(tag))
    run.log_page(report, f"{KIND}/parity.html")
    registry.record(version, {f"{bento_folder(tag)}/{file.name}": file for file in files})
    registry.tag(version, {"bento": tag})
    say(f"packaged {tag}, at most {worst} of 255 from what torch makes of the same pictures")
    return read_manifest(bento, KIND)


def _write(models: dict[str, Proved], folder: Path) -> str:
    """Write all that the step leaves; returns the Bento's tag."""
    write_json(folder / "parity.json", {name: [asdict(row) for row in model.rows] for name, model in models.items()})
    write_json(folder / PROVENANCE, models[MODEL].packed.provenance)
    golden = [case for name, model in models.items() for case in model.cases if case.found or name == MODEL]
    _write_golden(folder / GOLDEN, golden)
    say("building the Bento")
    with tempfile.TemporaryDirectory(prefix="kintsugi-package-") as scratch:
        return build_bento({name: m.packed for name, m in models.items()}, Path(scratch), folder / BENTO_FILE)


def _paired(config: ServeConfig, settings: Settings) -> tuple[Registry, Version] | None:
    """The registry and the champion of the blind model that comes along, if one does.

    Raises ``RegistryError`` where one was asked for by name and has no champion, and where that may not be served, or
    does not find damage itself.
    """
    if not config.paired:
        return None
    registry = Registry(settings, config.paired)
    champion = registry.servable_champion()
    if champion is None and config.blind_model != "auto":
        raise RegistryError(
            f"serve_blind_model = {config.paired!r} has no champion to come along; promote one, or set it to none"
        )
    if champion and not load_generator(registry.download(champion)).blind:
        raise RegistryError(
            f"version {champion.number} of {config.paired!r}, which is to repair pictures without a mask, does not "
            "find damage itself; set serve_blind_model to a model that does, or to none"
        )
    return (registry, champion) if champion else None


def _prove(registry: Registry, version: Version, data: PreparedDataset, engine_at: str) -> Proved:
    """Compare a version's export, which its run has at ``engine_at``, with its network.

    Raises ``ParityError`` where they disagree, and ``RegistryError`` where a file is not the one that was registered.
    """
    generator, engine = load_generator(registry.download(version)), registry.download(version, engine_at)
    cases = golden_cases(data, wrap_generator(generator))
    if isinstance(generator, BlindUNet) and finds_damage(engine):
        cases += blind_cases(data, wrap_finder(generator), wrap_generator(generator))
        if not any(case.found for case in cases):
            raise ParityError(f"{version.name} version {version.number} finds no damage in any of the test pictures")
    setting, rows = prove_fastest(engine, generator, cases)
    provenance = _provenance(version, generator) | {"engine_sha256": file_digest(engine), "engine": setting}
    return Proved(Packed(engine, provenance), rows + check_batches(engine, generator, data), cases)


def _reported(models: dict[str, Proved]) -> dict[str, Any]:
    """What the report shows."""
    shown = {name: {"provenance": model.packed.provenance, "rows": model.rows} for name, model in models.items()}
    return {"models": shown, "min_ssim": min_ssim, "min_agreement": MIN_AGREEMENT}


def _write_golden(folder: Path, cases: list[Case]) -> None:
    folder.mkdir()
    for case in cases:
        pictures = {"image": case.image, "mask": case.mask * np.uint8(255), "expected": case.expected}
        for name, picture in pictures.items():
            (folder / f"{case.name}-{name}.png").write_bytes(encode_png(picture))
    write_json(folder / CASES, [{"name": case.name, "found": case.found} for case in cases])


def _provenance(version: Version, generator: Generator) -> dict[str, Any]:
    """What the served model says of itself."""
    copied = {name: version.tags[name] for name in ("digest", "dataset", "architecture", "code")}
    own = {"name": version.name, "version": version.number, "run_id": version.run_id, "scores": version.scores}
    decision = Decision.model_validate_json(version.tags["decision"])
    said = {"verdict": decision.verdict, "mode": decision.mode, "rules": [rule.sentence for rule in decision.rules]}
    return {**own, **copied, "decision": said, "stride": generator.stride, "blind": generator.blind}
