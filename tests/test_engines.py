from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import components.inpainting.engines
from components.inpainting.engines import Abandoned, EngineChoice, open_engine, pick_engine
from components.inpainting.export import export_onnx
from components.inpainting.images import Bytes
from components.inpainting.inpainter import wrap_finder, wrap_generator
from components.inpainting.networks.blind_unet import BlindUNet
from components.inpainting.networks.context_encoder import ContextEncoder
from components.inpainting.networks.residual_unet import ResidualUNet
from components.package.parity import Case

CHOICES = [EngineChoice(), EngineChoice("openvino"), EngineChoice("openvino", "bf16")]


@pytest.fixture(scope="module")
def generator() -> ResidualUNet:
    """A small generator whose residual is not zero."""
    torch.manual_seed(0)
    generator = ResidualUNet((8, 16), 1, (1, 2), 2, 4).eval()
    torch.nn.init.normal_(generator.refiner.unet.head.weight, std=0.02)
    return generator


@pytest.fixture(scope="module")
def exported(generator: ResidualUNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "generator.onnx"
    export_onnx(generator, path)
    return path


@pytest.fixture(scope="module")
def cases(generator: ResidualUNet, photographs: list[Bytes]) -> list[Case]:
    found = []
    for name, picture in (("small", photographs[0][:70, :90]), ("large", photographs[1])):
        mask = np.zeros(picture.shape[:2], np.uint8)
        mask[20:25] = mask[40:60, 30:50] = 1
        damaged = np.where(mask[..., None] > 0, np.uint8(0), picture)
        found.append(Case(name, damaged, mask, wrap_generator(generator)(damaged, mask)))
    return found


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice.runtime}-{choice.precision}")
def test_engines_repair_as_torch_does(choice: EngineChoice, generator, exported: Path, cases: list[Case]) -> None:
    if choice.available() != choice:
        pytest.skip(f"this processor does not compute in {choice.precision}")
    engine = open_engine(exported, generator.stride, choice)
    for case in cases:
        difference = np.abs(engine.inpaint(case.image, case.mask).astype(int) - case.expected)
        assert difference.max() <= choice.tolerance
    engine.close()


def test_half_precision_leaves_the_fill_exact(photographs: list[Bytes], tmp_path: Path) -> None:
    """A network that learned nothing answers with its fill, whose wide holes half precision gets wrong."""
    choice = EngineChoice("openvino", "bf16")
    if choice.available() != choice:
        pytest.skip("this processor does not compute in bf16")
    generator = ResidualUNet((8, 16), 1, (1, 2)).eval()
    export_onnx(generator, tmp_path / "generator.onnx")
    picture = photographs[1][:256, :256]
    mask = np.zeros(picture.shape[:2], np.uint8)
    mask[64:192, 64:192] = 1
    engine = open_engine(tmp_path / "generator.onnx", generator.stride, choice)
    repaired = engine.inpaint(picture, mask).astype(int)
    assert np.abs(repaired - wrap_generator(generator)(picture, mask)).max() <= 1
    engine.close()


def test_a_network_that_fills_nothing_is_run_in_one_stage(cases: list[Case], tmp_path: Path) -> None:
    generator = ContextEncoder().eval()
    export_onnx(generator, tmp_path / "generator.onnx")
    engine = open_engine(tmp_path / "generator.onnx", generator.stride, EngineChoice("openvino"))
    for case in cases:
        repaired = engine.inpaint(case.image, case.mask).astype(int)
        assert np.abs(repaired - wrap_generator(generator)(case.image, case.mask)).max() <= 1
    engine.close()


def test_many_threads_share_an_engine(generator, exported: Path, cases: list[Case]) -> None:
    engine = open_engine(exported, generator.stride, EngineChoice("openvino"))
    alone = [engine.inpaint(case.image, case.mask) for case in cases]
    wrong: list[str] = []

    def repair() -> None:
        for case, expected in zip(cases, alone, strict=True):
            if not np.array_equal(engine.inpaint(case.image, case.mask), expected):
                wrong.append(case.name)

    threads = [threading.Thread(target=repair) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    engine.close()


def test_a_repair_that_nobody_waits_for_ends_at_the_next_tile(generator, exported: Path, cases: list[Case]) -> None:
    engine = open_engine(exported, generator.stride, EngineChoice())
    batches: list[int] = []
    engine.on_batch = batches.append
    with pytest.raises(Abandoned):
        engine.inpaint(cases[1].image, cases[1].mask, lambda: False)
    assert batches == []
    engine.close()


def test_the_choice_is_possible_and_as_exact_as_asked(generator, exported: Path, cases: list[Case]) -> None:
    choice = pick_engine(exported, generator.stride, cases[:1], tolerance=1)
    assert choice.available() == choice
    assert choice.precision == "fp32"
    assert EngineChoice.of(choice.describe()) == choice


def test_a_processor_without_bf16_computes_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components.inpainting.engines, "_has_bf16", lambda: False)
    assert EngineChoice("openvino", "bf16", 2).available() == EngineChoice("openvino", "fp32", 2)


def test_a_blind_export_finds_what_the_network_finds(photographs: list[Bytes], tmp_path: Path) -> None:
    torch.manual_seed(1)
    generator = BlindUNet((8, 8, 8), (8, 16), 1, (1,), 2, 4).eval()
    torch.nn.init.normal_(generator.core.finder.head.weight, std=0.1)
    export_onnx(generator, tmp_path / "generator.onnx")
    picture = photographs[0][:100, :120]
    empty = np.zeros(picture.shape[:2], np.uint8)
    found, repaired = wrap_finder(generator)(picture), wrap_generator(generator)(picture, empty)
    assert 0 < found.mean() < 1
    for choice in (EngineChoice(), EngineChoice("openvino")):
        engine = open_engine(tmp_path / "generator.onnx", generator.stride, choice, blind=True)
        assert (engine.find(picture) == found).mean() > 0.999
        assert np.abs(engine.inpaint(picture, empty).astype(int) - repaired).max() <= 1
        engine.close()
