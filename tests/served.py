"""Servers for the tests: model folders made without torch, engines that mend flat damage, a client in-process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient

from components.inpainting.images import Bytes, encode_png
from serving.app import Parts, build_app
from serving.auth import Keys
from serving.engine import Engine
from serving.models import Models
from serving.settings import ServingSettings

STRIDE = 4


def write_model(folder: Path, version: str = "1", fill: float = 0.5, **changes: Any) -> Path:
    """A model folder whose generator answers with one grey, ``fill``, everywhere."""
    folder.mkdir(parents=True)
    content = constant_onnx(fill)
    (folder / "generator.onnx").write_bytes(content)
    provenance = {
        "name": "kintsugi", "version": version, "digest": f"{version:0>4}" * 16, "run_id": f"run-{version}",
        "dataset": "d" * 64, "code": "c", "architecture": "constant", "stride": STRIDE, "scores": {"ssim": 0.9},
        "decision": {"admitted": True}, "engine_sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(provenance | changes))
    return folder


def constant_onnx(fill: float) -> bytes:
    """An ONNX generator: ``image`` N,3,H,W and ``mask`` N,1,H,W to ``repair``, ``image`` with holes of one grey."""
    planes = [_planes(name, channels) for name, channels in (("image", 3), ("mask", 1), ("repair", 3))]
    nodes = [
        helper.make_node("Sub", ["one", "mask"], ["known"]),
        helper.make_node("Mul", ["image", "known"], ["kept"]),
        helper.make_node("Mul", ["mask", "fill"], ["filled"]),
        helper.make_node("Add", ["kept", "filled"], ["repair"]),
    ]
    constants = [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in (("one", 1.0), ("fill", fill))]
    graph = helper.make_graph(nodes, "constant", planes[:2], planes[2:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def _planes(name: str, channels: int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, "H", "W"])


class FlatEngine(Engine):
    """Takes pure red for damage, and repairs with the mean of what is known."""

    blind = True

    def __init__(self) -> None:
        self.provenance = {"name": "flat", "version": "blind", "digest": "f" * 64, "run_id": "r"}
        self.description = {"runtime": "numpy", "precision": "uint8", "threads": 1}
        self.on_batch, self.parallel = lambda size: None, 1

    def inpaint(self, image: Bytes, mask: Bytes, wanted: Callable[[], bool] = lambda: True) -> Bytes:
        mean = image[mask == 0].mean(axis=0).astype(np.uint8)
        return np.where(mask[..., None] == 1, mean, image).astype(np.uint8)

    def find(self, image: Bytes, wanted: Callable[[], bool] = lambda: True) -> Bytes:
        red: Bytes = np.all(image == [255, 0, 0], axis=2).astype(np.uint8)
        return red

    def close(self) -> None:
        pass


def make_parts(bundled: Path, *, blind: bool = False, **settings: Any) -> Parts:
    """The parts of a server of a model folder's parent; ``settings`` as in ``ServingSettings``."""
    chosen = ServingSettings(**settings)
    models = Models(bundled, chosen.models)
    if blind:
        models.current.blind = FlatEngine()
    return Parts(models, chosen, Keys(chosen.api_keys.get_secret_value(), chosen.api_keys_file))


@contextmanager
def client_of(parts: Parts) -> Iterator[TestClient]:
    """A client of a server in this process, whose exceptions become answers as they do outside of tests."""
    with TestClient(build_app(parts), raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, image: bytes | None, mask: bytes | None = None, *, accept: str = "*/*", **fields: Any):
    """POST a form."""
    files = {n: (f"{n}.png", c) for n, c in (("image", image), ("mask", mask)) if c is not None}
    return client.post("/inpaint", files=files, data=fields, headers={"accept": accept})


def white(mask: Bytes) -> bytes:
    """A mask as PNG."""
    return encode_png(mask * np.uint8(255))
