"""The dataset step against plain loops, in one run: preparing, reading batches, and memory.

    python -m tests.benchmarks.prepare [--pictures FOLDER] [--memory 1000,10000,100000]

Without a folder, pictures are cut from the photographs that ship with scikit-image. Ratios count; the
rates are those of the machine.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from components.config import DataConfig, Settings
from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Bytes
from components.prepare import prepare_here

_SIZE = 64
_BATCH = 64
_NUM_PICTURES = 2000
_ROUNDS = 3
_MEMORY = "1000,10000,100000"


def main() -> None:
    """Print all three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--memory", default=_MEMORY, help="numbers of pictures, comma-separated")
    parser.add_argument("--measure-memory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        _measure_memory(options.measure_memory)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.pictures or _write_pictures(Path(scratch) / "pictures")
        paths = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
        _preparing(folder, paths, Path(scratch))
        _reading(folder, paths, Path(scratch))
        _memory([int(number) for number in options.memory.split(",")], Path(scratch))


def _preparing(folder: Path, paths: list[Path], scratch: Path) -> None:
    """Pictures a second: a plain Pillow loop that only crops, and the whole step on one and two processes."""
    print(f"preparing {len(paths)} pictures of {_typical(paths)} to {_SIZE}x{_SIZE}, best of {_ROUNDS}")
    contenders: dict[str, Callable[[], object]] = {
        "plain Pillow loop, one process": lambda: np.stack([_plain(path) for path in paths]),
        "prepare, 1 process": lambda: _prepare(folder, scratch, 1),
        "prepare, 2 processes": lambda: _prepare(folder, scratch, 2),
    }
    _table(contenders, len(paths))


def _reading(folder: Path, paths: list[Path], scratch: Path) -> None:
    """Pictures a second while training: from the shards, and decoded anew each epoch as ImageFolder does."""
    images = PreparedDataset.open(_prepare(folder, scratch, 2)).split("train").images
    order = np.random.default_rng(0).integers(0, len(images), (max(1, len(paths) // _BATCH), _BATCH))
    print(f"\nreading {order.size} pictures in batches of {_BATCH}, best of {_ROUNDS}")
    contenders: dict[str, Callable[[], object]] = {
        "ImageFolder style, 1 process": lambda: _image_folder(paths, order, 1),
        "ImageFolder style, 2 processes": lambda: _image_folder(paths, order, 2),
        "shards": lambda: [images.take(rows) for rows in order],
    }
    _table(contenders, order.size)
    encoded = sum(paths[row % len(paths)].stat().st_size for row in order.ravel()) / len(order)
    print(f"bytes a batch: shards {images.take(order[0]).nbytes}, no decoder; ImageFolder style {encoded:.0f} of "
          f"files, decoded to {_BATCH * np.prod(_plain(paths[0], whole=True).shape)}")  # fmt: skip


def _table(contenders: dict[str, Callable[[], object]], count: int) -> None:
    """Time the contenders in turn, several rounds, and print the best rates and their ratio to the first."""
    best: dict[str, float] = dict.fromkeys(contenders, float("inf"))
    for _ in range(_ROUNDS):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - started)
    first = next(iter(best.values()))
    for name, seconds in best.items():
        print(f"  {name:32} {count / seconds:9.0f} pictures/s  x {first / seconds:.2f}")


def _plain(path: Path, whole: bool = False) -> Bytes:
    picture = Image.open(path).convert("RGB")
    return np.array(picture if whole else ImageOps.fit(picture, (_SIZE, _SIZE), Image.Resampling.LANCZOS))


class _ImageFolder:
    """What torchvision's ImageFolder does with Resize, CenterCrop and ToTensor."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> Bytes:
        return _plain(self._paths[row % len(self._paths)])


def _image_folder(paths: list[Path], order: np.ndarray, workers: int) -> int:
    from torch.utils.data import DataLoader

    loader = DataLoader(_ImageFolder(paths), batch_sampler=order.tolist(), num_workers=workers)  # type: ignore[arg-type,var-annotated]
    return sum(len(batch) for batch in loader)


def _prepare(source: Path, scratch: Path, workers: int) -> Path:
    config = DataConfig(source=str(source), image_size=_SIZE, crop="center", num_train=0, masks="box")
    with tempfile.TemporaryDirectory(dir=scratch) as home, _silence():
        return prepare_here(config, scratch / f"prepared-{workers}", Settings(home=Path(home), workers=workers))


def _memory(counts: list[int], scratch: Path) -> None:
    """Peak memory of the step over the number of pictures, each count in a process of its own."""
    print("\npeak memory of preparing a tar of 32x32 JPEGs, parent and the largest worker")
    peaks = []
    for count in counts:
        archive = scratch / f"{count}.tar"
        _write_tar(archive, count)
        command = [sys.executable, "-m", "tests.benchmarks.prepare", "--measure-memory", str(archive)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peaks.append(int(answer[0]))
        print(f"  {count:9} pictures: {peaks[-1] / 2**20:6.0f} MB, worker {int(answer[1]) / 2**20:4.0f} MB, "
              f"{count / float(answer[2]):5.0f} pictures/s", flush=True)  # fmt: skip
        archive.unlink()
    if len(counts) > 1:
        slope = (peaks[-1] - peaks[0]) / (counts[-1] - counts[0])
        print(f"  slope: {slope:.0f} bytes a picture")


def _measure_memory(archive: Path) -> None:
    config = DataConfig(source=str(archive), image_size=32, num_train=0, masks="box")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder, _silence():
        prepare_here(config, Path(folder), Settings(home=Path(folder) / "state", workers=2))
    seconds = time.perf_counter() - started
    # not getrusage of this process, which counts what its parent held when it forked
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(own.split()[1]) * 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, seconds)


def _write_pictures(folder: Path) -> Path:
    folder.mkdir()
    for number, picture in enumerate(_cuts(_NUM_PICTURES, 256, 320)):
        picture.save(folder / f"{number:05}.jpg", quality=90)
    return folder


def _write_tar(path: Path, count: int) -> None:
    with tarfile.open(path, "w") as tar:
        for number, picture in enumerate(_cuts(count, 32, 32)):
            content = io.BytesIO()
            picture.save(content, "JPEG", quality=90)
            member = tarfile.TarInfo(f"{number // 1000:04}/{number:07}.jpg")
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)
            tar.members.clear()  # type: ignore[attr-defined]


def _cuts(count: int, height: int, width: int) -> Iterator[Image.Image]:
    """Pictures that differ: cuts of two photographs, one over the other."""
    from skimage import data

    rng = np.random.default_rng(0)
    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]

    def cut(photograph: Bytes) -> Bytes:
        top, left = rng.integers(0, photograph.shape[0] - height + 1), rng.integers(0, photograph.shape[1] - width + 1)
        piece: Bytes = photograph[top : top + height, left : left + width]
        return piece

    for number in range(count):
        yield Image.fromarray(cut(photographs[number % 4]) // 2 + cut(photographs[(number + 1) % 4]) // 2)


def _typical(paths: list[Path]) -> str:
    with Image.open(paths[0]) as first:
        return f"{first.width}x{first.height} {first.format}"


class _silence:  # noqa: N801
    """The step's own lines would stand between those of the table."""

    def __enter__(self) -> None:
        sys.stdout.flush()
        self._out = os.dup(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
        os.dup2(self._out, 1)


if __name__ == "__main__":
    main()
