from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from components.config import ConfigError, Settings
from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import decode_image
from components.prepare import cifar, prepare_here
from components.prepare.entries import read_entry
from components.prepare.sources import open_source
from tests.conftest import SHARED, data_config
from tests.loopback import serve_http


def prepared(folder: Path, **changes: object) -> PreparedDataset:
    settings = Settings(home=folder / "state", workers=1)
    return PreparedDataset.open(prepare_here(data_config(**changes), folder, settings))


def batch(count: int, seed: int) -> dict[object, object]:
    rng = np.random.default_rng(seed)
    return {
        b"labels": [i % 10 for i in range(count)],
        b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        b"filenames": [f"{seed}-{i}.png".encode() for i in range(count)],
    }


@pytest.fixture
def batches(tmp_path: Path) -> Path:
    """A folder in CIFAR-10's layout, small."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    labels = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": labels}, protocol=2))
    for seed, name in enumerate(["data_batch_1", "data_batch_2", "test_batch"]):
        (folder / name).write_bytes(pickle.dumps(batch(200, seed), protocol=2))
    return folder


def test_cifar_batches_are_read_with_their_own_test_split(batches: Path, tmp_path: Path) -> None:
    data = prepared(tmp_path, source=str(batches), classes="cat,dog", image_size=32, masks="box", box_size=8)
    assert data.split("test").images.shape[1:] == (32, 32, 3)
    for name in ("train", "val", "test"):
        rows = data.split(name).index
        assert {row["class_name"] for row in rows} == {"cat", "dog"}
        assert {row["photo"].startswith("test_batch/") for row in rows} == {name == "test"}
    first = batch(200, 2)[b"data"]
    assert isinstance(first, np.ndarray)
    expected = first[3].reshape(3, 32, 32).transpose(1, 2, 0)
    row = next(i for i, r in enumerate(data.split("test").index) if r["photo"] == "test_batch/2-3.png")
    assert np.array_equal(data.split("test").images[row], expected)


def test_real_cifar_layout_is_read() -> None:
    folder = SHARED / "cifar-10-batches-py"
    if not folder.exists():
        pytest.skip("no CIFAR-10 batches beside the repository")
    rows = list(cifar.read(folder, ("cat", "dog")))
    assert len(rows) > 10_000
    assert {class_name for _, _, class_name, _ in rows} == {"cat", "dog"}


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("owned"),)


def test_a_hostile_batch_runs_nothing(batches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (batches / "data_batch_1").write_bytes(pickle.dumps({"data": Hostile()}))
    with pytest.raises(ConfigError, match=r"data_batch_1 is no CIFAR-10 batch .*wants pathlib"):
        list(cifar.read(batches, ()))
    assert not (tmp_path / "owned").exists()


def test_unknown_class_and_missing_batch_are_named(batches: Path) -> None:
    with pytest.raises(ConfigError, match="no class 'dgo'; did you mean 'dog'"):
        list(cifar.read(batches, ("dgo",)))
    (batches / "test_batch").unlink()
    with pytest.raises(ConfigError, match="test_batch is missing"):
        list(cifar.read(batches, ()))


@pytest.fixture
def archive(batches: Path) -> bytes:
    """The batches as the official archive, with a member that wants out of the folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(batches, "any-name")
        for name in ("../test_batch", "any-name/../test_batch", "/tmp/kintsugi/test_batch"):
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"no"))
    return buffer.getvalue()


@pytest.fixture
def site(archive: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server of the archive that breaks off the second range asked for; yields its URL and the ranges."""
    ranges: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(archive)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()

        def do_GET(self) -> None:
            ranges.append(self.headers["Range"])
            start, _, end = ranges[-1].removeprefix("bytes=").partition("-")
            part = archive[int(start) : int(end) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(archive)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[: len(part) // 2] if len(ranges) == 2 else part)

    with serve_http(Handler) as host:
        yield f"http://{host}/cifar.tar.gz", ranges


def test_download_resumes_and_checks(site: tuple[str, list[str]], archive: bytes, tmp_path: Path) -> None:
    url, ranges = site
    md5 = hashlib.md5(archive).hexdigest()
    downloads = tmp_path / "downloads"
    with pytest.raises(ConfigError, match="run again to go on"):
        cifar.download(downloads, url=url, md5=md5)
    (part,) = downloads.glob("*.part")
    done, asked = part.stat().st_size, len(ranges)
    assert 0 < done < len(archive)
    found = cifar.download(downloads, url=url, md5=md5)
    assert found.read_bytes() == archive
    assert ranges[asked].startswith(f"bytes={done}-")
    assert cifar.download(downloads, url="http://127.0.0.1:1/", md5=md5) == found


def test_a_download_with_another_md5_is_deleted(site: tuple[str, list[str]], tmp_path: Path) -> None:
    site[1].extend(["bytes=0-1"] * 2)
    with pytest.raises(ConfigError, match="md5"):
        cifar.download(tmp_path / "downloads", url=site[0], md5="0" * 32)
    assert not list((tmp_path / "downloads").glob("*cifar-10-python*"))


def test_an_archive_of_batches_is_read_like_the_folder(batches: Path, archive: bytes, tmp_path: Path) -> None:
    """Wherever it lies, whatever it is called; and what wants out of it stays in."""
    (tmp_path / "some-download").write_bytes(archive)
    (tmp_path / "work").mkdir()
    packed, plain = (
        open_source(data_config(source=str(place)), tmp_path / "work" / place.name, tmp_path)
        for place in (tmp_path / "some-download", batches)
    )
    assert [entry.name for entry in packed.entries()] == [entry.name for entry in plain.entries()]


def test_cats_and_dogs_are_the_default_and_pixels_are_kept(batches: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    entries = list(open_source(data_config(source=str(batches)), work, tmp_path).entries())
    assert {entry.class_name for entry in entries} == {"cat", "dog"}
    everything = open_source(data_config(source=str(batches), classes="all"), tmp_path / "all", tmp_path)
    assert len({entry.class_name for entry in everything.entries()}) == 10
    pixels = batch(200, 0)[b"data"]
    assert isinstance(pixels, np.ndarray)
    first = decode_image(read_entry(entries[0], work))
    assert entries[0].name == "data_batch_1/0-3.png"
    assert np.array_equal(first, pixels[3].reshape(3, 32, 32).transpose(1, 2, 0))


def test_a_site_that_is_down_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be reached"):
        cifar.download(tmp_path, url="http://127.0.0.1:1/cifar.tar.gz", md5="0")


def test_a_batch_without_labels_or_with_foreign_ones_is_named(batches: Path) -> None:
    whole = batch(200, 0)
    (batches / "data_batch_1").write_bytes(pickle.dumps({k: v for k, v in whole.items() if k != b"labels"}))
    with pytest.raises(ConfigError, match=r"data_batch_1 is no CIFAR-10 batch \('labels'\)"):
        list(cifar.read(batches, ()))
    (batches / "data_batch_1").write_bytes(pickle.dumps(whole | {b"labels": [10] * 200}))
    with pytest.raises(ConfigError, match="label 10, but there are 10 classes"):
        list(cifar.read(batches, ()))
