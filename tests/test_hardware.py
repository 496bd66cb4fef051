"""What is chosen for each card and CPU, with patched capabilities, and the real GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pynvml
import pytest
import torch

from components.hardware import (
    Compute,
    Device,
    HardwareError,
    choose_compute,
    choose_device,
    preflight,
    restore_compute,
)
from components.hardware.rules import Capability, CompileMode, Precision
from components.hardware.trial import check_arithmetic
from components.inpainting.inpainter import usable_cores

CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
P100, V100, T4, A100, L4, H100, BLACKWELL = (6, 0), (7, 0), (7, 5), (8, 0), (8, 9), (9, 0), (12, 0)
GB = 10**9


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


Pretend = Callable[..., None]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Make NVML report a driver and a number of cards, or not answer at all."""

    def pretend(driver: str, num_cards: int = 1) -> None:
        def start() -> None:
            if not driver:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

        monkeypatch.setattr(pynvml, "nvmlInit", start)
        monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: driver)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: num_cards)

    return pretend


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, nvml: Pretend) -> Pretend:
    """Make torch report a card; nothing is computed on it."""

    def pretend(
        name: str,
        capability: Capability,
        architectures: list[str] = CU126,
        cudnn: int = 91002,
        driver: str = "580.65.06",
        free: int = 15 * GB,
        num_cards: int = 1,
        problem: str = "",
    ) -> None:
        nvml(driver, num_cards)
        reports: dict[str, Any] = {
            "is_available": lambda: True,
            "device_count": lambda: num_cards,
            "set_device": lambda index: None,
            "get_device_capability": lambda index=None: capability,
            "get_device_name": lambda index=None: name,
            "get_arch_list": lambda: architectures,
            "mem_get_info": lambda index=None: (free, 16 * GB),
        }
        for function, report in reports.items():
            monkeypatch.setattr(torch.cuda, function, report)
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
        monkeypatch.setattr("components.hardware.trial.check_arithmetic", lambda *_: None)
        monkeypatch.setattr("components.hardware.compute.triton_problem", lambda: problem)

    return pretend


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch, nvml: Pretend) -> Pretend:
    """Make this a machine without a GPU whose CPU is this much faster in bf16; 0: it has no bf16."""

    def pretend(speedup: float, problem: str = "") -> None:
        nvml("")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr("components.hardware.compute.cpu_has_bf16", lambda: speedup > 0)
        monkeypatch.setattr("components.hardware.compute.bf16_speedup", lambda: speedup)
        monkeypatch.setattr("components.hardware.compute.cpp_problem", lambda: problem)

    return pretend


def test_a_p100_with_cuda_12_6_trains_in_fp32_or_on_request_in_fp16(card: Pretend) -> None:
    card("Tesla P100-PCIE-16GB", P100)
    device = choose_device()
    facts = preflight(device, require_gpu=True)
    assert facts["device"] == "Tesla P100-PCIE-16GB" and facts["driver"] == "580.65.06"
    assert facts["capability"] == "6.0" and facts["cudnn"] == "91002"
    assert facts["memory_gb"] == "16.0" and facts["free_memory_gb"] == "15.0"
    assert "R580" in facts["note"] and "2026-09-15" in facts["note"]
    compute = choose_compute(device, "auto", "auto", 100_000)
    assert (compute.precision, compute.compile, compute.channels_last) == ("fp32", "off", False)
    assert "sm_60" in compute.reason
    assert choose_compute(device, "fp16", "auto", 10).precision == "fp16"
    with pytest.raises(HardwareError, match="train_precision=fp16"):
        choose_compute(device, "bf16", "auto", 10)
    with pytest.raises(HardwareError, match=r"sm_70.*train_compile=off"):
        choose_compute(device, "auto", "on", 10)


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ({"architectures": CU130}, "CUDA 12.6"),
        ({"cudnn": 91700}, "nvidia-cudnn-cu12==9.10.2.21"),
        ({"driver": "590.44.01"}, "R580"),
    ],
)
def test_a_p100_with_the_wrong_wheels_or_driver_fails_at_once(
    card: Pretend, what: dict[str, Any], problem: str
) -> None:
    card("Tesla P100-PCIE-16GB", P100, **what)
    with pytest.raises(HardwareError, match=problem):
        choose_device()


def test_blackwell_with_cuda_12_6_fails(card: Pretend) -> None:
    card("RTX PRO 6000", BLACKWELL)
    with pytest.raises(HardwareError, match="whl/cu130"):
        choose_device()


@pytest.mark.parametrize(
    ("name", "capability", "precision", "compile_mode"),
    [
        ("V100", V100, "fp32", "reduce-overhead"),
        ("T4", T4, "fp32", "reduce-overhead"),
        ("L4", L4, "bf16", "reduce-overhead"),
        ("A100", A100, "bf16", "reduce-overhead"),
        ("H100", H100, "bf16", "reduce-overhead"),
    ],
)
def test_what_each_card_chooses(
    card: Pretend, name: str, capability: Capability, precision: Precision, compile_mode: CompileMode
) -> None:
    card(name, capability)
    compute = choose_compute(choose_device(), "auto", "auto", 10)
    assert (compute.precision, compute.compile, compute.channels_last) == (precision, compile_mode, True)
    assert compute.tags["hardware.device"] == name
    assert compute.tags["hardware.precision"] == precision
    assert compute.tags["hardware.compile"] == compile_mode
    assert compute.tags["hardware.memory_format"] == "channels_last"
    assert compute.tags["hardware.capability"] == ".".join(map(str, capability))


def test_a_gpu_without_triton_or_its_compiler_trains_uncompiled(card: Pretend) -> None:
    card("L4", L4, problem="there is no compiler 'gcc'; install gcc")
    device = choose_device()
    assert choose_compute(device, "auto", "auto", 10).compile == "off"
    with pytest.raises(HardwareError, match=r"install gcc.*train_compile=off"):
        choose_compute(device, "auto", "on", 10)


def test_old_cards_have_no_fp16(card: Pretend) -> None:
    card("Tesla M60", (5, 2))
    with pytest.raises(HardwareError, match=r"Pascal.*train_precision=fp32$"):
        choose_compute(choose_device(), "fp16", "auto", 10)
    with pytest.raises(HardwareError, match=r"train_precision=fp32$"):
        choose_compute(choose_device(), "bf16", "auto", 10)


def test_a_card_that_others_fill_fails(card: Pretend) -> None:
    card("L4", L4, free=GB // 2)
    with pytest.raises(HardwareError, match=r"only 0\.5 of the 16\.0 GB.*nvidia-smi"):
        preflight(choose_device())


def test_every_process_gets_its_own_card(card: Pretend) -> None:
    card("L4", L4, num_cards=2)
    assert choose_device(1, 2).torch == torch.device("cuda", 1)
    with pytest.raises(HardwareError, match="--nproc-per-node=2"):
        choose_device(2, 3)


def test_a_cudnn_older_than_torchs_own_is_named(card: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    def complain() -> int:
        raise RuntimeError("cuDNN version incompatibility: PyTorch was compiled against (9, 10, 2)\nmore")

    card("L4", L4)
    monkeypatch.setattr(torch.backends.cudnn, "version", complain)
    with pytest.raises(HardwareError, match=r"\(9, 10, 2\)\); install"):
        choose_device()


def test_the_cpu_gets_as_many_threads_as_cores(cpu: Pretend) -> None:
    cpu(0)
    assert choose_device().torch.type == "cpu"
    assert torch.get_num_threads() == usable_cores()
    assert preflight(choose_device(0, 10**6)) == {"device": "CPU", "threads": "1", "torch": torch.__version__}
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("speedup", "precision"), [(0, "fp32"), (0.7, "fp32"), (1.05, "fp32"), (1.8, "bf16")])
def test_a_cpu_computes_in_bf16_where_that_is_faster(cpu: Pretend, speedup: float, precision: Precision) -> None:
    cpu(speedup)
    compute = choose_compute(choose_device(), "auto", "off", 10)
    assert (compute.precision, compute.compile) == (precision, "off")
    assert compute.channels_last == (precision == "fp32")


@pytest.mark.parametrize(
    ("asked", "num_steps", "problem", "expected"),
    [
        ("auto", 2999, "", "off"),
        ("auto", 3000, "", "default"),
        ("auto", 3000, "no g++", "off"),
        ("on", 10, "", "default"),
        ("off", 9999, "", "off"),
    ],
)
def test_a_cpu_compiles_where_that_pays(
    cpu: Pretend, asked: Literal["auto", "off", "on"], num_steps: int, problem: str, expected: CompileMode
) -> None:
    cpu(1.8, problem)
    compute = choose_compute(choose_device(), "bf16", asked, num_steps)
    assert compute.compile == expected
    assert compute.channels_last == (expected == "default")


def test_a_cpu_never_compiles_of_itself_what_would_be_no_faster(cpu: Pretend) -> None:
    cpu(1.8)
    compute = choose_compute(choose_device(), "auto", "auto", 10**9, repaid_after=float("inf"))
    assert compute.compile == "off"
    assert "no faster" in compute.reason
    assert choose_compute(choose_device(), "auto", "on", 1, repaid_after=float("inf")).compile == "default"


def test_what_a_cpu_refuses(cpu: Pretend) -> None:
    cpu(0, "there is no compiler 'g++'; install g++")
    device = choose_device()
    with pytest.raises(HardwareError, match="fp16 needs a GPU; set train_precision=fp32"):
        choose_compute(device, "fp16", "auto", 10)
    with pytest.raises(HardwareError, match=r"AVX512-BF16.*train_precision=fp32"):
        choose_compute(device, "bf16", "auto", 10)
    with pytest.raises(HardwareError, match=r"install g\+\+.*train_compile=off"):
        choose_compute(device, "fp32", "on", 10)


def test_a_resumed_training_computes_as_it_began(cpu: Pretend, card: Pretend) -> None:
    cpu(1.8)
    began = choose_compute(choose_device(), "auto", "auto", 5000)
    cpu(0.7)  # the machine is busy: measured again, it would choose fp32
    assert restore_compute(choose_device(), began.settings) == began
    cpu(0)
    with pytest.raises(HardwareError, match=r"in bf16.*CPU, .*train_precision=fp32"):
        restore_compute(choose_device(), began.settings)
    cpu(1.8, "there is no compiler 'g++'")
    with pytest.raises(HardwareError, match=r"compiled \(default\).*train_compile=off"):
        restore_compute(choose_device(), began.settings)
    with pytest.raises(HardwareError, match="does not know"):
        restore_compute(choose_device(), {"precision": "fp8"})
    card("A100", A100)
    graphs = choose_compute(choose_device(), "fp32", "on", 5000)
    cpu(1.8)
    with pytest.raises(HardwareError, match=r"CUDA graphs need a GPU.*train_compile=off"):
        restore_compute(choose_device(), graphs.settings)
    card("Tesla P100-PCIE-16GB", P100)
    with pytest.raises(HardwareError, match=r"sm_60.*train_precision=fp32.*train_precision=fp16"):
        restore_compute(choose_device(), began.settings)


def test_a_machine_without_a_gpu_is_no_error_unless_one_was_asked_for(cpu: Pretend) -> None:
    cpu(0)
    device = Device(torch.device("cpu"), "CPU")
    preflight(device)
    with pytest.raises(HardwareError, match="a GPU was asked for, and there is none"):
        preflight(device, require_gpu=True)


@pytest.mark.parametrize("variable", ["GPU-8f2c", "MIG-17", "all", "void"])
def test_a_card_handed_out_that_torch_cannot_use_fails(
    cpu: Pretend, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """CUDA's base images say ``all`` on machines without a GPU, too."""
    cpu(0)
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", variable)
    device = choose_device()
    if variable in ("all", "void"):
        preflight(device)
        return
    with pytest.raises(HardwareError, match=r"torch cannot use.*CUDA_VISIBLE_DEVICES"):
        preflight(device)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    preflight(device)


def test_a_cpu_build_beside_a_card_fails(cpu: Pretend, nvml: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu(0)
    nvml("580.65.06", 1)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(HardwareError, match=r"built for CPUs alone; install.*whl/cu126"):
        preflight(choose_device())


def test_a_device_that_computes_wrong_or_not_at_all_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    check_arithmetic(cpu, "this CPU")
    convolve = torch.nn.functional.conv2d
    calls = iter(range(9))

    def drift(*args: Any, **kwargs: Any) -> torch.Tensor:
        return convolve(*args, **kwargs) * (1 + 0.1 * next(calls))

    monkeypatch.setattr(torch.nn.functional, "conv2d", drift)
    with pytest.raises(HardwareError, match="a convolution wrong"):
        check_arithmetic(cpu, "this CPU")

    def fail(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.nn.functional, "conv2d", fail)
    with pytest.raises(HardwareError, match=r"failed: CUDA error: no kernel image .* device; reinstall"):
        check_arithmetic(cpu, "this CPU")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_precision(precision: Precision, dtype: torch.dtype) -> None:
    compute = Compute(Device(torch.device("cpu"), "CPU"), precision, "off", True)
    convolution = torch.nn.Conv2d(3, 4, 3).to(memory_format=compute.memory_format)  # type: ignore[call-overload]
    for _ in range(2):
        with compute.autocast():
            assert convolution(torch.rand(1, 3, 8, 8)).dtype == dtype
    assert convolution.weight.dtype == torch.float32


def test_measuring_this_cpu_leaves_no_trace() -> None:
    device, state = Device(torch.device("cpu"), "CPU"), torch.random.get_rng_state()
    threads = torch.get_num_threads()
    first = choose_compute(device, "auto", "off", 10)
    assert first.precision in ("fp32", "bf16")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.gpu
def test_the_gpu_passes_preflight_and_trains_as_chosen() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU on this machine")
    device = choose_device()
    facts = preflight(device, require_gpu=True)
    assert facts["device"] == torch.cuda.get_device_name() and float(facts["free_memory_gb"]) > 0
    compute = choose_compute(device, "auto", "auto", 10)
    network: Any = torch.nn.Conv2d(3, 8, 3).to(device.torch).to(memory_format=compute.memory_format)  # type: ignore[call-overload]
    if compute.compile != "off":
        network = torch.compile(network, mode=compute.compile)
    with compute.autocast():
        output = network(torch.rand(1, 3, 9, 9, device=device.torch))
    output.float().mean().backward()
    assert output.isfinite().all()
