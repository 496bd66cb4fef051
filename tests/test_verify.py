"""A registered model packaged, its Bento started and asked, and what is refused when somebody changed a file."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from components.bentos import ServiceError
from components.client import InpaintError
from components.config import RunConfig, ServeConfig, Settings, TrainConfig
from components.inpainting.export import export_onnx
from components.inpainting.images import encode_png, read_image
from components.inpainting.networks import Generator, build_generator, name_of, save_generator
from components.inpainting.scores import Decision, Rule
from components.manifest import Manifest, read_json, read_manifest
from components.package import package
from components.tracking import Registry, RegistryError, bento_folder, open_run, start_run
from components.verify import verify
from pipelines.champion import NoChampionError, fetch_champion

pytestmark = pytest.mark.slow

CONFIG = ServeConfig(model_name="mender")
ADMITTED = Decision(admitted=True, rules=[Rule(name="trained", passed=True, sentence="It was trained.")])


def promote(settings: Settings, name: str) -> None:
    """Make version 1 champion as if its Bento had been verified."""
    registry = Registry(settings, name)
    registry.verified("1", registry.get("1").tags["bento"], alike=True)
    registry.promote("1")


def register(settings: Settings, name: str, generator: Generator) -> None:
    """Register a network as version 1 of a model, with what evaluate leaves of it."""
    files = settings.make_state() / name
    files.mkdir()
    save_generator(generator, files)
    export_onnx(generator, settings.state / "generator.onnx")
    manifest = Manifest(kind="dataset", digest="d" * 64, code_version="", facts={"source": "sample"})
    with start_run(settings, RunConfig(), TrainConfig(), manifest) as run:
        run.log_model_folder(files)
    open_run(settings, run.id).log_file(settings.state / "generator.onnx", "evaluation")
    said = {"scores": '{"ssim": 0.9}', "decision": ADMITTED.model_dump_json(), "code": "0", "dataset": "d" * 64}
    registry = Registry(settings, name)
    registry.register(run.id, {"digest": name, "architecture": name_of(generator), **said})
    registry.record("1", {f"generator/{file.name}": file for file in files.iterdir()})
    registry.record("1", {"evaluation/generator.onnx": settings.state / "generator.onnx"})


@pytest.fixture(scope="module")
def packaged(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    """A state folder with a packaged model, a champion that repairs blindly beside it, and the folder of its Bento."""
    home = tmp_path_factory.mktemp("packaged")
    settings = Settings(home=home / "state")
    torch.manual_seed(0)
    for name, architecture in (("mender-blind", "blind_unet"), ("mender", "residual_unet")):
        generator = build_generator(architecture, fill_iterations=2).eval()  # which exports three times as fast
        for parameter in generator.parameters():  # what training starts from repairs nothing, and finds nothing
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        register(settings, name, generator)
        package(ServeConfig(model_name=name), "1", dataset, home / name, home / f"{name}.html", settings)
        if name == "mender-blind":
            promote(settings, name)
    return settings, home / "mender"


def test_the_bento_says_where_it_came_from_and_what_comes_along(packaged: tuple[Settings, Path]) -> None:
    settings, bento = packaged
    said = read_json(bento / "provenance.json")
    assert (said["name"], said["version"], said["architecture"], said["blind"]) == (
        "mender",
        "1",
        "residual_unet",
        False,
    )
    assert said["decision"]["rules"] == ["It was trained."] and said["scores"] == {"ssim": 0.9}
    assert said["engine"]["runtime"] in ("onnxruntime", "openvino")
    version = Registry(settings, "mender").get("1")
    folder, files = bento_folder(version.tags["bento"]), version.files
    assert files[f"{folder}/generator.onnx"] == said["engine_sha256"] == files["evaluation/generator.onnx"]
    rows = read_json(bento / "parity.json")
    assert set(rows) == {"model", "blind"}
    assert {row["case"] for row in rows["model"]} >= {"0-box", "2-text", "batch of 3"}
    cases = read_json(bento / "golden" / "cases.json")
    assert {case["found"] for case in cases} == {True, False}
    report = bento.with_name("mender.html").read_text()
    assert "mender-blind version 1, for pictures without a mask" in report and said["engine_sha256"] in report
    client = MlflowClient(settings.mlflow_uri)
    assert {file.path for file in client.list_artifacts(said["run_id"], "bento")} == {folder, "bento/parity.html"}
    logged = {file.path for file in client.list_artifacts(said["run_id"], folder)}
    assert logged == {f"{folder}/{name}" for name in ("kintsugi.bento", "provenance.json", "generator.onnx")}


def test_its_server_answers_as_the_trainer_does(
    packaged: tuple[Settings, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, bento = packaged
    report = tmp_path / "report.html"
    assert verify(CONFIG, bento, report, settings), capsys.readouterr().out
    assert Registry(settings, "mender").get("1").bento == read_manifest(bento, "bento").facts["tag"]
    page, cases = report.read_text(), read_json(bento / "golden" / "cases.json")
    assert f"Verified: its server repairs all {len(cases)} golden pictures" in page
    assert read_json(bento / "provenance.json")["digest"] in page and "kfp, mlflow, torch: none was loaded" in page
    shown = dict(re.findall(r"✓ ([\w-]+)</strong>,(.*?)</figcaption>", page, re.DOTALL))
    assert shown.keys() == {case["name"] for case in cases} and "✗" not in page
    tolerance = read_manifest(bento, "bento").facts["tolerance"]
    given = [shown[case["name"]] for case in cases if not case["found"]]
    held = [re.findall(r"difference (\d+) of 255 \(at most (\d+)\)", text)[0] for text in given]
    assert all(int(difference) <= int(most) == tolerance for difference, most in held)
    assert f">{max(int(difference) for difference, _ in held)} of 255; at most {tolerance}," in page
    assert all("without a mask" in shown[case["name"]] for case in cases if case["found"])
    assert 0.1 < float(re.findall(r"until it was ready</th><td class=\"text\">([\d.]+)<", page)[0]) < 180


def test_a_server_that_answers_otherwise_is_not_verified(
    packaged: tuple[Settings, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, bento = packaged
    copy = shutil.copytree(bento, tmp_path / "bento")
    cases = read_json(copy / "golden" / "cases.json")
    kept = [next(case for case in cases if case["found"] is found) for found in (False, True)]
    (copy / "golden" / "cases.json").write_text(json.dumps(kept))
    for case in kept:
        expected = copy / "golden" / f"{case['name']}-expected.png"
        expected.write_bytes(encode_png(255 - read_image(expected)))
    report = tmp_path / "report.html"
    assert not verify(CONFIG, copy, report, settings)
    told = capsys.readouterr().out
    assert (
        f"{kept[0]['name']}: the repair is " in told and f"{kept[1]['name']}: the repair is not the trainer's" in told
    )
    assert Registry(settings, "mender").get("1").problem == "did not repair alike when it was served"
    page = html.unescape(report.read_text())
    assert "Not verified: 2 of 2 golden pictures came back otherwise" in page
    for sentence in told.splitlines()[-3:-1]:
        name, _, problem = sentence.partition(": ")
        assert f"✗ {name}</strong>" in page and f'<span class="fail">{problem}.</span>' in page


def test_a_server_that_says_it_is_another_model_is_not_verified(
    packaged: tuple[Settings, Path], tmp_path: Path
) -> None:
    settings, bento = packaged
    copy, report = shutil.copytree(bento, tmp_path / "bento"), tmp_path / "report.html"
    said = read_json(copy / "provenance.json")
    (copy / "provenance.json").write_text(json.dumps(said | {"digest": "e" * 64}))
    cases = [case for case in read_json(copy / "golden" / "cases.json") if not case["found"]][:1]
    (copy / "golden" / "cases.json").write_text(json.dumps(cases))
    assert not verify(CONFIG, copy, report, settings)
    assert f"it says that version 1 with the digest {said['digest']} repaired" in report.read_text()


def test_a_server_that_refuses_a_picture_leaves_a_report_behind(
    packaged: tuple[Settings, Path], tmp_path: Path
) -> None:
    settings, bento = packaged
    copy, report = shutil.copytree(bento, tmp_path / "bento"), tmp_path / "report.html"
    cases = [case for case in read_json(copy / "golden" / "cases.json") if not case["found"]][:2]
    (copy / "golden" / "cases.json").write_text(json.dumps(cases))
    (copy / "golden" / f"{cases[1]['name']}-image.png").write_bytes(b"no picture")
    with pytest.raises(InpaintError) as refused:
        verify(CONFIG, copy, report, settings)
    page = html.unescape(report.read_text())
    assert f"Not verified, after 1 of 2 golden pictures: {refused.value}" in page
    assert f"✓ {cases[0]['name']}</strong>" in page and "not clean, or not looked at" in page


def test_a_bento_that_does_not_start_leaves_a_report_behind(packaged: tuple[Settings, Path], tmp_path: Path) -> None:
    settings, bento = packaged
    copy, report = shutil.copytree(bento, tmp_path / "bento"), tmp_path / "report.html"
    (copy / "kintsugi.bento").write_bytes(b"no archive")
    with pytest.raises(ServiceError, match="cannot be imported"):
        verify(CONFIG, copy, report, settings)
    page = report.read_text()
    assert "cannot be imported" in page and 'until it was ready</th><td class="text">never<' in page
    run = Registry(settings, "mender").get("1").run_id
    kept = MlflowClient(settings.mlflow_uri).download_artifacts(run, "bento/verification.html", str(tmp_path))
    assert Path(kept).read_text() == page


def test_a_blind_model_that_was_asked_for_by_name_must_have_a_champion(
    packaged: tuple[Settings, Path], dataset: Path, tmp_path: Path
) -> None:
    config = ServeConfig(model_name="mender", blind_model="nobody")
    with pytest.raises(RegistryError, match="serve_blind_model = 'nobody' has no champion to come along"):
        package(config, "1", dataset, tmp_path / "bento", tmp_path / "report.html", packaged[0])
    assert not (tmp_path / "bento").exists()


@pytest.fixture
def champion(packaged: tuple[Settings, Path], tmp_path: Path) -> Callable[[], Path]:
    """The packaged model made champion and fetched into a store of the test's own."""
    settings, _ = packaged
    promote(settings, "mender")
    mine = Settings(home=tmp_path / "mine", MLFLOW_TRACKING_URI=settings.mlflow_uri)
    return lambda: fetch_champion(mine, "mender").model


def test_a_model_that_was_changed_in_the_store_is_refused(champion: Callable[[], Path]) -> None:
    model = champion()
    before = (model / "generator.onnx").read_bytes()
    (model / "generator.onnx").write_bytes(before + b"!")
    with pytest.raises(NoChampionError, match="is not the one that was packaged as version 1, so it was removed"):
        champion()
    assert (champion() / "generator.onnx").read_bytes() == before


def test_a_bento_that_was_changed_in_mlflow_is_refused(
    packaged: tuple[Settings, Path], champion: Callable[[], Path]
) -> None:
    settings, bento = packaged
    version = Registry(settings, "mender").get("1")
    artifacts = str(MlflowClient(settings.mlflow_uri).get_run(version.run_id).info.artifact_uri).removeprefix("file://")
    path = f"{bento_folder(version.tags['bento'])}/kintsugi.bento"
    archive = Path(artifacts) / path
    archive.write_bytes(archive.read_bytes() + b"!")
    try:
        with pytest.raises(RegistryError, match=f"version 1 of 'mender' is refused: its {path} has the digest"):
            champion()
    finally:
        shutil.copy(bento / "kintsugi.bento", archive)
    assert read_manifest(bento, "bento").facts["version"] == "1"
