"""Shared pieces: a small real dataset, a small trained state folder, the command line as users start it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from components.config import DataConfig, PipelineConfig, Settings
from components.inpainting.images import Bytes, encode_png
from components.prepare import prepare_here

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browsing import Open, Site
    from tests.cluster_api import Cluster

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"

SMALL = {
    "data_num_train": 256,
    "data_num_val": 8,
    "data_num_test": 24,
    "train_log_interval": 20,
    "train_sample_interval": 100,
}

SHORTEST = {
    "train_steps": 8, "train_batch_size": 4, "train_log_interval": 2, "train_sample_interval": 8,
    "train_checkpoint_interval": 0, "train_precision": "fp32", "train_compile": "off",
}  # fmt: skip
"""A training that counts its steps, bit for bit the same wherever it runs."""

LONGEST = ("test_docker", "test_end_to_end", "test_recovery", "test_verify", "test_evaluate", "test_trainjob")
"""Files that take minutes each: they begin first, so that none is left alone at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Give every worker, and what it starts, cores of its own: threads that share one slow each other down."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores, count = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        own = cores[int(worker.removeprefix("gw")) % len(cores) :: count]
        os.sched_setaffinity(0, own)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def photographs() -> list[Bytes]:
    """Real photographs, uint8 H,W,3, of several sizes."""
    from skimage import data

    return [data.astronaut()[:200, :301], data.chelsea(), data.coffee()[100:357, 50:250]]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset prepared from the sample photographs."""
    folder = tmp_path_factory.mktemp("dataset")
    config = PipelineConfig.from_flat({**SMALL, "data_num_test": 8}).data
    return prepare_here(config, folder, Settings(home=folder, workers=1))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 32 pixels."""
    folder = tmp_path_factory.mktemp("small")
    data = {**SMALL, "data_image_size": 32, "data_num_val": 4, "data_num_test": 8}
    return prepare_here(PipelineConfig.from_flat(data).data, folder, Settings(home=folder, workers=1))


@pytest.fixture(scope="session")
def two_processes(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of the shortest training, by two processes on one machine."""
    from tests.training import train_model

    home = tmp_path_factory.mktemp("two_processes")
    config = PipelineConfig.from_flat({**SHORTEST, "train_num_processes": 2})
    return train_model(config, small, home, Settings(home=home))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A state folder of the test's own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Settings(home=tmp_path / "state")


@pytest.fixture
def picture_folder(tmp_path: Path, photographs: list[Bytes]) -> Path:
    """A folder of twelve different PNG pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        photo = photographs[number % 3]
        Image.fromarray(np.roll(photo, 31 * number, axis=1)[:, : 150 + number]).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def many(tmp_path: Path, photographs: list[Bytes]) -> Path:
    """A folder of 120 different small JPEG and PNG pictures in two classes, cut from photographs."""
    rng = np.random.default_rng(0)
    for number in range(120):
        photo = photographs[number % 3]
        top, left = rng.integers(0, photo.shape[0] - 70), rng.integers(0, photo.shape[1] - 80)
        folder = tmp_path / "many" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        cut = Image.fromarray(photo[top : top + 70, left : left + 80])
        cut.save(folder / f"{number:03}.{'png' if number % 3 else 'jpg'}", quality=95)
    return tmp_path / "many"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, closed with the module, for its event loop stands in the way of others."""
    from tests.browsing import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def small_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of a Bento with a small untrained generator, which fills as the biharmonic method does."""
    from components.inpainting.export import export_onnx
    from components.inpainting.networks.residual_unet import ResidualUNet

    folder = tmp_path_factory.mktemp("bento") / "model"
    folder.mkdir()
    generator = ResidualUNet(widths=(8, 16), num_blocks=1, dilations=(1, 2), fill_levels=2, fill_iterations=2)
    export_onnx(generator, folder / "generator.onnx")
    digest = hashlib.sha256((folder / "generator.onnx").read_bytes()).hexdigest()
    provenance = {
        "name": "kintsugi", "version": "3", "digest": "d" * 64, "run_id": "r", "stride": generator.stride,
        "engine_sha256": digest,
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


@pytest.fixture(scope="module")
def site(browser: Browser, small_engine: Path) -> Iterator[Site]:
    """The service with its page on a free port; depends on ``browser`` so that it skips first."""
    from serving.app import build_app
    from tests.browsing import serve
    from tests.served import make_parts

    with serve(build_app(make_parts(small_engine.parent))) as site:
        yield site


@pytest.fixture
def visit(browser: Browser, site: Site) -> Open:
    """Open the page with a browser context's options."""
    from tests.browsing import open_page

    return partial(open_page, browser, site)


@pytest.fixture
def page(visit: Open, picture: Bytes) -> Iterator[Page]:
    """The page with ``picture`` opened."""
    from tests.browsing import load

    with visit() as page:
        load(page, encode_png(picture))
        yield page


@pytest.fixture
def picture() -> Bytes:
    """200 by 240 pixels; red says which column a pixel is in, green which row, and blue is noise."""
    rows, columns = np.mgrid[:200, :240].astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, rows.shape, dtype=np.uint8)
    return np.stack([columns, rows, noise], axis=-1)


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service account of pods that ``tests.cluster_api`` knows."""
    from tests.cluster_api import make_account

    folder = tmp_path_factory.mktemp("account")
    make_account(folder)
    return folder


@pytest.fixture
def pod(account: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """This process as a pod of the namespace ``team``, and the cluster around it."""
    from components import cluster
    from tests.cluster_api import Cluster, serve

    monkeypatch.setattr(cluster, "_ACCOUNT", account)
    played = Cluster()
    with serve(played, account) as port:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        yield played


Kintsugi = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kintsugi(tmp_path: Path) -> Kintsugi:
    """Run the ``kintsugi`` command in a process of its own, in a state folder of the test's own."""

    def run(*arguments: str, home: Path = tmp_path / "state", timeout: float = 600) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "KINTSUGI_"))}
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            env=environment | {"KINTSUGI_HOME": str(home), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


def data_config(**changes: object) -> DataConfig:
    """The small dataset's configuration with changes, by flat names without their prefix."""
    small = {name: value for name, value in SMALL.items() if name.startswith("data_")}
    return PipelineConfig.from_flat({**small, **{f"data_{name}": value for name, value in changes.items()}}).data


def wait_for(path: Path, pattern: str) -> None:
    """Wait until there is a file of that pattern under ``path``."""
    for _ in range(6000):
        if any(path.glob(pattern)):
            return
        time.sleep(0.02)
    pytest.fail(f"no {pattern} in {path} after two minutes")
