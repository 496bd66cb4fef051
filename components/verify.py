"""The verify step: start the Bento as users will, ask it for repairs, compare with the trainer's own."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from components.bentos import import_bento, run_server
from components.client import InpaintClient
from components.config import ServeConfig, Settings
from components.inpainting.images import Bytes, composite, decode_image, decode_mask, read_image, read_mask
from components.inpainting.metrics import ssim
from components.inpainting.tolerance import COARSE_SSIM, MIN_AGREEMENT
from components.manifest import read_json, read_manifest
from components.progress import say, step, track
from components.tracking import Registry

_PARTS = ("image", "mask", "expected")


@dataclass(frozen=True)
class Golden:
    """A picture to send, and what the trainer's own network makes of it, as files.

    Where ``found`` nothing says where the picture is damaged: ``mask`` is what the network found.
    """

    name: str
    found: bool
    image: Path
    mask: Path
    expected: Path

    @classmethod
    def read(cls, folder: Path) -> list[Golden]:
        """The cases of a folder that package wrote."""
        cases = read_json(folder / "cases.json")
        return [
            cls(case["name"], case["found"], *(folder / f"{case['name']}-{part}.png" for part in _PARTS))
            for case in cases
        ]


@step("verify")
def verify(config: ServeConfig, bento: Path, settings: Settings) -> bool:
    """Whether the Bento's own server repairs every golden picture as the trainer's network did, however it is asked.

    Under a mask a hole may differ by the engine's tolerance in grey levels, a known pixel not at all; without one the
    found holes and the repair may differ by ``MIN_AGREEMENT`` and ``COARSE_SSIM``. The registered version is tagged
    with the answer. Raises ``ServiceError`` when the server does not come up, or loads torch, kfp or mlflow, and
    ``InpaintError`` when it refuses a request.
    """
    facts = read_manifest(bento, "bento").facts
    cases = Golden.read(bento / "golden")
    wrong = []
    with tempfile.TemporaryDirectory(prefix="kintsugi-verify-") as store:
        import_bento(bento / "kintsugi.bento", Path(store))
        with run_server(facts["tag"], Path(store)) as server:
            for case in track(cases, "verify", len(cases)):
                wrong += [f"{case.name}: {problem}" for problem in _problems(server.url, case, facts["tolerance"])]
            server.check_loaded()
    verified = bool(cases) and not wrong
    for sentence in wrong[:5]:
        say(sentence)
    say(f"{facts['tag']} answered {len(cases)} golden pictures, sent as a form and as JSON: "
        + ("verified" if verified else "not verified"))  # fmt: skip
    Registry(settings, config.model_name).tag(facts["version"], {"verified": str(verified).lower()})
    return verified


def _problems(url: str, case: Golden, tolerance: int) -> Iterator[str]:
    """What is wrong with the answers to one picture, in sentences."""
    with InpaintClient(url) as client:
        served = client.inpaint(case.image, None if case.found else case.mask).pixels
    parts = {"image": case.image} | ({} if case.found else {"mask": case.mask})
    sent = {name: base64.b64encode(path.read_bytes()).decode() for name, path in parts.items()}
    answer = httpx.post(f"{url}/inpaint", json=sent, headers={"Accept": "application/json"}, timeout=120)
    answer.raise_for_status()
    told = answer.json()
    again, mask = decode_image(base64.b64decode(told["image"])), decode_mask(base64.b64decode(told["mask"]))
    if not np.array_equal(again, served):
        yield "the answer as JSON is another picture than the one to a form"
    yield from _found_problems(case, served, mask) if case.found else _given_problems(case, served, mask, tolerance)


def _given_problems(case: Golden, served: Bytes, mask: Bytes, tolerance: int) -> Iterator[str]:
    image, given, expected = read_image(case.image), read_mask(case.mask), read_image(case.expected)
    if not np.array_equal(mask, given):
        yield "the mask that was used is not the one that was sent"
    if not np.array_equal(composite(image, served, given), served):
        yield "known pixels came back changed"
    difference = int(np.abs(served.astype(int) - expected.astype(int)).max())
    if difference > tolerance:
        yield f"the repair is {difference} of 255 from the trainer's"


def _found_problems(case: Golden, served: Bytes, mask: Bytes) -> Iterator[str]:
    image, found, expected = read_image(case.image), read_mask(case.mask), read_image(case.expected)
    agreement = float((mask == found).mean())
    if agreement < MIN_AGREEMENT:
        yield f"it finds other damage than the trainer does, in {1 - agreement:.2%} of the pixels"
    if not np.array_equal(composite(image, served, mask), served):
        yield "pixels that it takes for sound came back changed"
    similarity = float(ssim(served[None], expected[None])[0])
    if similarity < COARSE_SSIM:
        yield f"the repair is not the trainer's (SSIM {similarity:.4f})"
