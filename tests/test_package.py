from __future__ import annotations

import importlib.metadata
import json
import pickletools
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.inpainting.dataset import PreparedDataset
from components.inpainting.export import export_onnx
from components.inpainting.images import Bytes
from components.inpainting.inpainter import open_classical, open_onnx, wrap_generator
from components.inpainting.networks import build_generator
from components.package.bento import MODEL, Packed, build_bento
from components.package.contents import FORBIDDEN, ROOT, exact_pins, service_files
from components.package.parity import ParityError, check_batches, check_parity, golden_cases


def test_golden_cases_are_real_pictures_of_several_sizes_under_every_family(dataset: Path) -> None:
    cases = golden_cases(PreparedDataset.open(dataset), open_classical("biharmonic"))
    assert len(cases) == 12
    assert {case.mask.shape for case in cases} == {(64, 64), (102, 102), (192, 262)}
    assert all(case.mask.any() and case.image.shape[:2] == case.mask.shape for case in cases)


def test_the_papers_network_exports_and_repairs_alike(dataset: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = build_generator("context_encoder").eval()
    export_onnx(generator, tmp_path / "generator.onnx")
    cases = golden_cases(PreparedDataset.open(dataset), wrap_generator(generator))
    rows = check_parity(open_onnx(tmp_path / "generator.onnx", generator.stride), cases)
    assert [row.case for row in rows] == [case.name for case in cases]
    assert [row.size for row in rows[::4]] == ["64x64", "102x102", "262x192"]
    batches = check_batches(tmp_path / "generator.onnx", generator, PreparedDataset.open(dataset))
    assert [(row.case, row.size) for row in batches] == [
        ("batch of 1", "32x32"), ("batch of 3", "64x32"), ("batch of 5", "64x96"),
    ]  # fmt: skip
    list(generator.parameters())[-1].data += 0.1
    with pytest.raises(ParityError, match=r"differs from torch by \d+ of 255 .* on batch of 1"):
        check_batches(tmp_path / "generator.onnx", generator, PreparedDataset.open(dataset))


def test_an_export_that_repairs_otherwise_is_refused(dataset: Path) -> None:
    cases = golden_cases(PreparedDataset.open(dataset), open_classical("biharmonic"))[:1]

    def darker(image: Bytes, mask: Bytes) -> Bytes:
        repaired = open_classical("biharmonic")(image, mask).astype(int)
        return np.clip(repaired - 3 * mask[..., None], 0, 255).astype(np.uint8)

    with pytest.raises(ParityError, match="differs from torch by 3 of 255"):
        check_parity(darker, cases)


def test_the_service_brings_along_what_it_imports_and_nothing_that_needs_torch() -> None:
    files = service_files()
    names = {path.relative_to(ROOT).as_posix() for path in files}
    assert {"serving/service.py", "components/__init__.py", "components/inpainting/inpainter.py"} <= names
    assert {path for path in names if path.startswith("serving/")} == {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "serving").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not any("networks" in name or "classical" in name or name.startswith("pipelines") for name in names)


def test_pins_are_exact_and_leave_nothing_to_the_resolver() -> None:
    pins = dict(pin.split("==") for pin in exact_pins())
    assert {"bentoml", "numpy", "onnxruntime", "pillow", "starlette", "httptools", "uvloop"} <= set(pins)
    assert not set(pins) & {*FORBIDDEN, "opencv-python-headless", "scikit-image"}
    for name, version in pins.items():
        assert importlib.metadata.version(name) == version
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert needed.specifier.contains(pins[canonicalize_name(needed.name)], prereleases=True), line


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A Bento around a network, and its tag."""
    from components.inpainting.networks.residual_unet import ResidualUNet

    folder, generator = tmp_path_factory.mktemp("bento"), ResidualUNet(fill_iterations=2)
    export_onnx(generator, folder / "generator.onnx")
    return folder / "kintsugi.bento", pack(folder, generator.stride)


def pack(folder: Path, stride: int) -> str:
    """Build a Bento in a folder around its ``generator.onnx``."""
    import hashlib

    digest = hashlib.sha256((folder / "generator.onnx").read_bytes()).hexdigest()
    provenance = {
        "name": "kintsugi", "version": "1", "digest": "d" * 64, "run_id": "r", "stride": stride, "blind": False,
        "engine_sha256": digest, "engine": {},
    }  # fmt: skip
    return build_bento(
        {MODEL: Packed(folder / "generator.onnx", provenance)}, folder / "scratch", folder / "kintsugi.bento"
    )


def is_pickle(content: bytes) -> bool:
    """Whether bytes are a pickle of protocol 2 or later, to its end."""
    try:
        return content[:1] == b"\x80" and [op.name for op, *_ in pickletools.genops(content)][-1] == "STOP"
    except ValueError:
        return False


def test_a_bento_holds_no_pickle(archive: tuple[Path, str]) -> None:
    import pickle

    assert is_pickle(pickle.dumps([1]))
    with tarfile.open(archive[0]) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    assert any(name.endswith("model/generator.onnx") for name in files)
    assert not [name for name, content in files.items() if is_pickle(content) or content[:4] == b"PK\x03\x04"]
    ours = [content.decode() for name, content in files.items() if "/src/" in f"/{name}" and name.endswith(".py")]
    assert ours and not [code for code in ours if re.search(r"import (cloud)?pickle|allow_pickle=True", code)]


def test_a_bento_is_named_by_its_content(archive: tuple[Path, str]) -> None:
    with tarfile.open(archive[0]) as tar:
        (name,) = [name for name in tar.getnames() if name.endswith("model/provenance.json")]
        assert json.loads(tar.extractfile(name).read())["version"] == "1"  # type: ignore[union-attr]
    assert re.fullmatch(r"kintsugi:v1-[0-9a-f]{12}", archive[1])
