"""Ways to run an exported generator on a CPU, several tiles at a time, and which of them is the fastest here.

ONNX Runtime runs everywhere. OpenVINO is quicker, most of all for the shapes of whole tiles, for which it compiles the
network anew, and in half precision (bf16) on processors that compute in it. Importing this module loads neither.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from components.inpainting.images import ROUNDING, Bytes, Floats
from components.inpainting.inpainter import inpaint, open_session, usable_cores
from components.inpainting.repairing import PAIR, Batch, Fill, find_damage
from components.inpainting.tiling import LARGE, MEDIUM, SMALL, THIN

HALF_PRECISION = 4
"""Grey levels (of 255) by which a repair computed in bf16 may differ from the trainer's own."""

Runtime = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16"]
_Shape = tuple[int, int] | None  # of a batch: how many tiles, and their side; or any
_SHAPES = [(PAIR, SMALL.side), *((1, size.side) for size in (SMALL, THIN, MEDIUM, LARGE))]  # 20 MB each and core
_STAGES = (("likely",), ("filled", "soft"), ("repair",))  # what an export answers, in the order in which it is computed
_MAX_PARALLEL = 8  # each takes memory; more cores serve more processes
_HINTS = {"fp32": "f32", "bf16": "bf16"}  # as OpenVINO calls them
_ROUNDS = 2
_WORTH_ALL_CORES = 0.9  # of the time that one core a tile takes: several requests wait for each other then
_LOG = logging.getLogger("kintsugi")


class Abandoned(Exception):
    """Nobody waits for the repair any more, so it was not finished."""


class Case(Protocol):
    """A picture (uint8 ``H,W,3``), a mask (``H,W``) and the repair that is to come out."""

    @property
    def image(self) -> Bytes: ...  # noqa: D102
    @property
    def mask(self) -> Bytes: ...  # noqa: D102
    @property
    def expected(self) -> Bytes: ...  # noqa: D102


@dataclass(frozen=True)
class EngineChoice:
    """How to run a generator: by which library, in which precision, on how many threads a tile.

    As many tiles are computed at a time as there are cores for.
    """

    runtime: Runtime = "onnxruntime"
    precision: Precision = "fp32"
    threads: int = 1

    @classmethod
    def of(cls, setting: dict[str, Any]) -> EngineChoice:
        """The choice in a model's provenance; what that does not say is as always."""
        return cls(**{name: setting[name] for name in ("runtime", "precision", "threads") if name in setting})

    def describe(self) -> dict[str, Any]:
        """As a mapping: the fields, and the ``tolerance``."""
        return {**asdict(self), "tolerance": self.tolerance}

    @property
    def parallel(self) -> int:
        """How many tiles are computed at a time."""
        return min(max(1, usable_cores() // self.threads), _MAX_PARALLEL)

    @property
    def tolerance(self) -> int:
        """Grey levels by which its repairs may differ from the trainer's own."""
        return HALF_PRECISION if self.precision == "bf16" else ROUNDING

    def available(self) -> EngineChoice:
        """This choice, or what comes closest to it on this machine."""
        if self.runtime == "openvino" and not find_spec("openvino"):
            return EngineChoice(threads=self.threads)
        if self.precision == "bf16" and not _has_bf16():
            return EngineChoice(self.runtime, "fp32", self.threads)
        return self


class TileEngine:
    """An exported generator ready to repair pictures, for any number of threads; see ``open_engine``."""

    def __init__(self, network: _Network, stride: int, choice: EngineChoice, *, blind: bool) -> None:
        self._network, self._stride, self.choice, self.blind = network, stride, choice, blind
        self._parallel = choice.parallel
        self._pool = ThreadPoolExecutor(self._parallel, thread_name_prefix="tile")
        self.on_batch: Callable[[int], None] = lambda size: None
        """Told how many tiles the network is given at a time."""

    def inpaint(self, image: Bytes, mask: Bytes, wanted: Callable[[], bool] = lambda: True) -> Bytes:
        """Repair uint8 ``H,W,3`` where the mask, uint8 ``H,W``, is 1; see ``Inpainter``.

        Raises ``Abandoned`` as soon as ``wanted``, which is asked before every tile, is false.
        """
        run = self._mapper(wanted)
        return inpaint(image, mask, self._counted(self._network.repair), self._stride, blind=self.blind, run=run)

    def find(self, image: Bytes, wanted: Callable[[], bool] = lambda: True) -> Bytes:
        """Where uint8 ``H,W,3`` is damaged: uint8 ``H,W`` of 0 and 1. Blind generators only."""
        assert self.blind
        return find_damage(image, self._counted(self._network.find), self._stride, self._mapper(wanted))

    def prepare(self) -> None:
        """Do now what would otherwise be done when a tile of some size is there for the first time."""
        self._network.prepare()

    def close(self) -> None:
        """Free the network; no repair may be under way."""
        self._pool.shutdown(cancel_futures=True)

    def _counted(self, fill: Fill) -> Fill:
        def run(image: Floats, mask: Floats) -> Floats:
            self.on_batch(len(image))
            return fill(image, mask)

        return run

    def _mapper(self, wanted: Callable[[], bool]) -> Callable[..., Iterator[Floats]]:
        def run(function: Callable[[Batch], Floats], batches: Iterable[Batch]) -> Iterator[Floats]:
            """No more tiles of one picture in the queue than run at a time, so that others get their turn."""
            begun: deque[Future[Floats]] = deque()
            try:
                for batch in batches:
                    if not wanted():
                        raise Abandoned
                    begun.append(self._pool.submit(function, batch))
                    if len(begun) > self._parallel:
                        yield begun.popleft().result()
                while begun:
                    yield begun.popleft().result()
            finally:
                for future in begun:
                    future.cancel()

        return run


def open_engine(path: Path, stride: int, choice: EngineChoice, *, blind: bool = False) -> TileEngine:
    """Open an exported generator as chosen, or, where this machine cannot do that, as close to it as it can."""
    possible = choice.available()
    if possible != choice:
        _LOG.warning("this machine cannot run %s; it runs %s instead", choice, possible)
    if possible.runtime == "onnxruntime":
        return TileEngine(_OnnxRuntime(path, possible), stride, possible, blind=blind)
    return TileEngine(_OpenVino(path, possible), stride, possible, blind=blind)


def pick_engine(
    path: Path, stride: int, cases: Sequence[Case], *, blind: bool = False, tolerance: int = HALF_PRECISION
) -> EngineChoice:
    """The fastest way to run an exported generator on this CPU, whose repairs are as expected.

    Each candidate repairs all ``cases`` once for every core, as many at a time as there are cores, and may differ from
    what is expected by its own tolerance, ``tolerance`` at most. ONNX Runtime in full precision is what is left if none
    passes.
    """
    cores = usable_cores()
    kinds: list[tuple[Runtime, Precision]] = [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")]
    candidates = [EngineChoice(runtime, precision) for runtime, precision in kinds]
    seconds = _race([choice for choice in candidates if choice.tolerance <= tolerance], path, stride, cases, blind)
    best = min(seconds, key=lambda choice: seconds[choice], default=EngineChoice())
    if cores > 1 and best in seconds:
        wide = EngineChoice(best.runtime, best.precision, cores)
        taken = _race([wide], path, stride, cases, blind).get(wide, math.inf)
        return wide if taken < _WORTH_ALL_CORES * seconds[best] else best
    return best


def _race(
    choices: Sequence[EngineChoice], path: Path, stride: int, cases: Sequence[Case], blind: bool
) -> dict[EngineChoice, float]:
    """Seconds for all cases by the choices that are possible here and repair as expected, the best of some rounds."""
    seconds = {}
    for choice in choices:
        if choice.available() == choice:
            engine = open_engine(path, stride, choice, blind=blind)
            if all(_difference(engine, case) <= choice.tolerance for case in cases):
                seconds[choice] = min(_time(engine, cases) for _ in range(_ROUNDS))
            engine.close()
    return seconds


def _difference(engine: TileEngine, case: Case) -> int:
    return int(np.abs(engine.inpaint(case.image, case.mask).astype(int) - case.expected).max())


def _time(engine: TileEngine, cases: Sequence[Case]) -> float:
    started, cores = time.perf_counter(), usable_cores()
    with ThreadPoolExecutor(cores) as pool:  # every core has as much to do, however the cases differ
        list(pool.map(lambda case: engine.inpaint(case.image, case.mask), [*cases] * cores))
    return time.perf_counter() - started


class _Network(Protocol):
    def repair(self, image: Floats, mask: Floats) -> Floats: ...
    def find(self, image: Floats, mask: Floats) -> Floats: ...
    def prepare(self) -> None: ...


class _OnnxRuntime:
    def __init__(self, path: Path, choice: EngineChoice) -> None:
        self._session = open_session(path, choice.threads)

    def repair(self, image: Floats, mask: Floats) -> Floats:
        return self._run("repair", image, mask)

    def find(self, image: Floats, mask: Floats) -> Floats:
        return self._run("likely", image, mask)

    def prepare(self) -> None:
        """Nothing is compiled."""

    def _run(self, output: str, image: Floats, mask: Floats) -> Floats:
        answer: Floats = self._session.run([output], {"image": image, "mask": mask})[0]
        return answer


class _OpenVino:
    """Cut into stages, and compiled for the shapes of the tiles that most holes get, and once for all others.

    Those take half as long again. The fill is computed in full precision always: in bf16 its conjugate gradients are
    off by up to six grey levels, and no quicker.
    """

    def __init__(self, path: Path, choice: EngineChoice) -> None:
        import openvino

        _infer_once()
        self._core, self._path, self._precision = openvino.Core(), path, choice.precision
        self._config = {
            "INFERENCE_NUM_THREADS": choice.parallel * choice.threads,
            "NUM_STREAMS": choice.parallel,
            "ENABLE_CPU_PINNING": False,  # in a container, cores are not ours alone
        }
        self._compiled: dict[_Shape, list[Any]] = {}
        self._lock, self._local = threading.Lock(), threading.local()

    def repair(self, image: Floats, mask: Floats) -> Floats:
        return self._run("repair", image, mask)

    def find(self, image: Floats, mask: Floats) -> Floats:
        return self._run("likely", image, mask)

    def prepare(self) -> None:
        for shape in (None, *_SHAPES):
            self._stages(shape)

    def _run(self, wanted: str, image: Floats, mask: Floats) -> Floats:
        batch, _, height, width = image.shape
        shape = (batch, height) if height == width and (batch, height) in _SHAPES else None
        tensors = {"image": image, "mask": mask}
        for request in self._requests(shape):
            needed = {port: tensors[port.get_any_name()] for port in request.model_inputs}
            request.infer(needed, share_inputs=True)
            made = zip(request.model_outputs, request.output_tensors, strict=True)
            tensors |= {port.get_any_name(): tensor.data for port, tensor in made}
            if wanted in tensors:
                break
        return tensors[wanted].copy()

    def _requests(self, shape: _Shape) -> list[Any]:
        """This thread's own, one for each stage."""
        requests: dict[_Shape, list[Any]] = self._local.__dict__.setdefault("requests", {})
        if shape not in requests:
            requests[shape] = [stage.create_infer_request() for stage in self._stages(shape)]
        return requests[shape]

    def _stages(self, shape: _Shape) -> list[Any]:
        with self._lock:
            if shape not in self._compiled:
                whole = self._core.read_model(self._path)
                self._compiled[shape] = [self._compile(stage, shape) for stage in _cut(whole)]
            return self._compiled[shape]

    def _compile(self, stage: Any, shape: _Shape) -> Any:
        if shape is not None:
            batch, side = shape
            stage.reshape({port: [batch, port.get_partial_shape()[1], side, side] for port in stage.inputs})
        exact = any(port.get_any_name() == "filled" for port in stage.outputs)
        precision = {"INFERENCE_PRECISION_HINT": _HINTS["fp32" if exact else self._precision]}
        return self._core.compile_model(stage, "CPU", self._config | precision)


def _cut(whole: Any) -> Iterator[Any]:
    """The stages of an export as OpenVINO models: each takes inputs of the whole and what stages before it make."""
    import openvino
    from openvino import opset13

    outputs = {port.get_any_name(): port.node for port in whole.outputs}
    inputs = list(whole.get_parameters())
    for names in _STAGES:
        results = [outputs[name] for name in names if name in outputs]
        if results:
            used = {node.get_friendly_name() for result in results for node in _above(result)}
            yield openvino.Model(results, [port for port in inputs if port.get_friendly_name() in used])
        for result in results:
            made = result.input(0).get_source_output()
            given = opset13.parameter(made.get_partial_shape(), np.float32, name=f"given {made.get_any_name()}")
            given.output(0).get_tensor().set_names(made.get_names())
            for target in made.get_target_inputs():
                if target.get_node().get_type_name() != "Result":
                    target.replace_source_output(given.output(0))
            inputs.append(given)


@cache
def _infer_once() -> None:
    """Infer once before there are threads that do.

    OpenVINO's Python binding looks up numpy's types at their first use, in a C++ static that one thread initialises
    while it waits for the interpreter's lock, which another may hold that waits for the static: for ever.
    """
    import openvino
    from openvino import opset13

    port = opset13.parameter([1, 1, 1, 1], np.float32, name="image")
    model = openvino.Model([opset13.relu(port)], [port])
    request = openvino.Core().compile_model(model, "CPU").create_infer_request()
    request.infer({0: np.zeros((1, 1, 1, 1), np.float32)}, share_inputs=True)
    request.get_output_tensor(0).data.copy()


def _above(node: Any) -> Iterator[Any]:
    """An OpenVINO node and all that it is computed from."""
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in seen:
            seen.add(node.get_friendly_name())
            waiting += [value.get_source_output().get_node() for value in node.inputs()]
            yield node


def _has_bf16() -> bool:
    """Whether OpenVINO says that this CPU computes in bf16."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
