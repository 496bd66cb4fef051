"""The endpoint beside its bare engine and beside a plain service of the same network; where its time goes.

    python -m tests.benchmarks.serving [--model FOLDER] [--seconds 10]

A real server, in processes of its own, and clients share this machine, so ratios count. ``FOLDER`` holds
``generator.onnx`` and ``provenance.json``; without one it is the champion in ``KINTSUGI_HOME``, and where
there is none an untrained generator, which is as fast. The plain service is FastAPI, Pillow and torch as
one would write them in an afternoon; its network has the same architecture and weights of no meaning.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import skimage.data
from PIL import Image, ImageDraw

from components.bentos import free_port
from components.config import Settings
from components.inpainting.images import Bytes, Floats, decode_image, encode
from components.inpainting.inpainter import usable_cores
from components.inpainting.tiling import plan_tiles
from serving.engine import Engine
from tests.hammering import Answers, cpu_seconds, hammer, make_form, photograph, serve_models, square_form

SIDE, HOLE = 256, 128
ENOUGH = 2  # clients that keep the server busy and are not sent away
LARGE = (3000, 4000)
ROUNDS = 5


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a folder with generator.onnx and provenance.json")
    parser.add_argument("--seconds", type=float, default=10, help="that each load lasts")
    options = parser.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = options.model or _champion() or _untrained(scratch / "model")
        provenance = json.loads((model / "provenance.json").read_text())
        engine = Engine.open(model)
        print(f"{provenance['architecture']}, {engine.description}, {usable_cores()} cores, {SIDE}x{SIDE} PNG,")
        print(f"a hole of {HOLE}x{HOLE}, loads of {options.seconds:g} s each, clients on the same cores")
        server = stack.enter_context(serve_models(model))
        asyncio.run(hammer(server.url, [square_form(SIDE, HOLE)], 1, 2))
        _shares(server.url, server.pid, engine, options.seconds)
        plain = stack.enter_context(_plain_service(provenance["architecture"]))
        _rates(server.url, plain, engine, options.seconds)
        _latencies(server.url, options.seconds)
        _large(server.url)


def _champion() -> Path | None:
    from pipelines.champion import NoChampionError, fetch_champion

    settings = Settings()
    with suppress(NoChampionError):
        return fetch_champion(settings, "kintsugi").model if (settings.state / "mlflow.db").exists() else None
    return None


def _untrained(folder: Path) -> Path:
    """A model folder of a generator that learned nothing, to be run as ``package`` would have it run."""
    from components.inpainting.engines import pick_engine
    from components.inpainting.export import ENGINE, export_onnx
    from components.inpainting.inpainter import wrap_generator
    from components.inpainting.networks import build_generator
    from components.package.parity import Case

    folder.mkdir()
    generator = build_generator("residual_unet").eval()
    export_onnx(generator, folder / ENGINE)
    image, mask = _picture()
    case = Case("square", image, mask, wrap_generator(generator)(image, mask))
    engine = pick_engine(folder / ENGINE, generator.stride, [case]).describe()
    digest = hashlib.sha256((folder / ENGINE).read_bytes()).hexdigest()
    provenance = {"name": "untrained", "version": "0", "digest": digest, "run_id": "", "engine_sha256": digest}
    facts = {"architecture": "residual_unet", "stride": generator.stride, "blind": False, "engine": engine}
    (folder / "provenance.json").write_text(json.dumps(provenance | facts))
    return folder


def _shares(url: str, pid: int, engine: Engine, seconds: float) -> None:
    """(a) What a request costs, and how much of it is the network."""
    before = cpu_seconds(pid)
    answers = asyncio.run(hammer(url, [square_form(SIDE, HOLE)], 1, seconds))
    count = answers.statuses[200]
    whole = (cpu_seconds(pid) - before) / count
    network = _network_seconds(engine, min(count, 50))
    print(f"\n(a) network: {network / whole:.0%} of the server's processor time a request (wanted: 85 %)")
    print(f"  {1000 * network:.1f} of {1000 * whole:.1f} ms; wall clock of the stages, mean of {count} requests:")
    stages = {name: total / count for name, total in answers.timings.items()}
    seen = 1000 * sum(answers.seconds) / count
    for name, milliseconds in [*stages.items(), ("HTTP and client", seen - sum(stages.values()))]:
        print(f"  {name:16} {milliseconds:7.1f} ms {milliseconds / seen:6.0%}")


def _network_seconds(engine: Engine, repeats: int) -> float:
    """Processor time that the network alone takes for the request's tiles, all of them, in this process."""
    tiles: list[tuple[Floats, Floats]] = []
    network = engine._tiles._network
    repair = network.repair

    def remember(image: Floats, mask: Floats) -> Floats:
        tiles.append((image, mask))
        return repair(image, mask)

    network.repair = remember  # type: ignore[method-assign]
    engine.inpaint(*_picture())
    del network.repair
    spent = time.process_time()
    for _ in range(repeats):
        for image, mask in tiles:
            repair(image, mask)
    return (time.process_time() - spent) / repeats


def _picture() -> tuple[Bytes, Bytes]:
    mask, start = np.zeros((SIDE, SIDE), np.uint8), (SIDE - HOLE) // 2
    mask[start : start + HOLE, start : start + HOLE] = 1
    return photograph(SIDE, SIDE), mask


def _rates(url: str, plain: str, engine: Engine, seconds: float) -> None:
    """(b) Repairs per second of the server, of its engine in a loop and of the plain service, in turn."""

    def rate(at: str, clients: int) -> float:
        return asyncio.run(hammer(at, [square_form(SIDE, HOLE)], clients, seconds / 2)).rate

    rate(plain, 1)
    rounds = np.array(
        [
            (rate(url, ENOUGH), _bare(engine, seconds / 2), max(rate(plain, clients) for clients in (1, ENOUGH)))
            for _ in range(ROUNDS)
        ]
    )
    served, bare, other = np.median(rounds, axis=0)
    times, share = (np.median(rounds[:, 0] / rounds[:, column]) for column in (2, 1))
    print(f"\n(b) repairs per second, medians of {ROUNDS} rounds in turn: {times:.2f} times the plain service,")
    print(f"  {share:.2f} of the bare engine (wanted: 3 times the plain service)")
    print(f"  {'server':16} {served:7.1f}\n  {'bare engine':16} {bare:7.1f}\n  {'FastAPI, torch':16} {other:7.1f}")


def _latencies(url: str, seconds: float) -> None:
    """(c) At 1, 8 and 64 clients, and at as many as keep the server busy."""
    print("\n(c) clients, of which those who are told to wait do so; milliseconds of what was repaired")
    for clients in (1, ENOUGH, 8, 64):
        answers = asyncio.run(hammer(url, [square_form(SIDE, HOLE)], clients, seconds))
        print(
            f"  {clients:3} clients: p50 {answers.percentile(50):7.1f}  p99 {answers.percentile(99):7.1f}  "
            f"{answers.rate:6.1f} repairs/s  {_others(answers)}"
        )


def _others(answers: Answers) -> str:
    return ", ".join(f"{count} times {status}" for status, count in answers.other().items()) or "all repaired"


def _bare(engine: Engine, seconds: float) -> float:
    """Repairs per second of the engine alone, as many at a time as there are cores."""
    image, mask = _picture()
    began = time.perf_counter()

    def loop(_: int) -> int:
        count = 0
        while time.perf_counter() < began + seconds:
            engine.inpaint(image, mask)
            count += 1
        return count

    with ThreadPoolExecutor(usable_cores()) as pool:
        return sum(pool.map(loop, range(usable_cores()))) / (time.perf_counter() - began)


@contextmanager
def _plain_service(architecture: str) -> Iterator[str]:
    port = free_port()
    factory = "tests.benchmarks.plain_service:build_app"
    options = ["--factory", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.plain_service", architecture, factory, *options],
        cwd=Path(__file__).parents[2],
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with suppress(httpx.TransportError):
                httpx.get(url)
                break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _large(url: str) -> None:
    """(d) A large photograph with scratches."""
    image, mask = _scratched()
    tiles = plan_tiles(mask, mask)
    pixels = sum((t.rows.stop - t.rows.start) * (t.columns.stop - t.columns.start) for t in tiles)
    print(f"\n(d) JPEG of {mask.size / 1e6:.0f} megapixels, {mask.mean():.2%} of them hole (wanted: under 2 s)")
    print(f"  {pixels / mask.size:.1%} of the picture computed, in {len(tiles)} tiles")
    _time_large(url, image, mask)


def _scratched() -> tuple[Bytes, Bytes]:
    """Photographs beside each other, 12 megapixels, and some long scratches."""
    samples = (skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket())
    height, width = LARGE[0] // 2, LARGE[1] // 2
    quarters = [np.asarray(Image.fromarray(sample).resize((width, height))) for sample in samples]
    rng, canvas = np.random.default_rng(0), Image.new("L", (LARGE[1], LARGE[0]))
    for _ in range(6):
        ends = rng.uniform(0, 1, (2, 2)) * (LARGE[1], LARGE[0])
        ImageDraw.Draw(canvas).line([tuple(end) for end in ends.tolist()], fill=1, width=5)
    whole = np.vstack([np.hstack(quarters[:2]), np.hstack(quarters[2:])])
    return whole, np.asarray(canvas)


def _time_large(url: str, image: Bytes, mask: Bytes) -> None:
    """Print the best seconds of three requests and the stages of the last, for both kinds of answer."""
    photo = encode(image, "JPEG", 92)
    for kind in ("png", "jpeg"):
        form, seconds = make_form(photo, mask, format=kind), []
        for _ in range(3):
            began = time.perf_counter()
            headers = {"Content-Type": form.content_type}
            answer = httpx.post(f"{url}/inpaint", content=form.body, headers=headers, timeout=120)
            seconds.append(time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
        known = mask == 0
        assert kind == "jpeg" or (decode_image(answer.content)[known] == decode_image(photo)[known]).all()
        print(f"  as {kind}: {min(seconds):.2f} s, {answer.headers['server-timing']}")


if __name__ == "__main__":
    main()
