from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.config import ConfigError, Settings
from components.inpainting.dataset import PreparedDataset
from components.inpainting.images import Bytes, ImageError
from components.prepare import cifar, prepare
from components.prepare.sources import open_source
from tests.conftest import SHARED, data_config


def prepared(folder: Path, **changes: object) -> PreparedDataset:
    prepare(data_config(**changes), folder / "dataset", folder / "card.html", Settings(home=folder / "state"))
    return PreparedDataset.open(folder / "dataset")


def test_sample_splits_share_no_photograph(dataset: Path) -> None:
    data = PreparedDataset.open(dataset)
    photos = {name: {row["photo"] for row in data.split(name).index} for name in ("train", "val", "test")}
    digests = {name: {row["sha256"] for row in data.split(name).index} for name in ("train", "val", "test")}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert photos[one] and photos[other]
        assert not photos[one] & photos[other]
        assert not digests[one] & digests[other]


def test_no_test_crop_lies_in_a_training_photograph(dataset: Path) -> None:
    """By pixels, not by names: no test picture is nearly equal to a training picture."""
    data = PreparedDataset.open(dataset)
    thumbs = {
        name: np.asarray(data.split(name).images, float).reshape(-1, 8, 8, 8, 8, 3).mean((2, 4)).reshape(-1, 192)
        for name in ("train", "test")
    }
    distances = np.abs(thumbs["test"][:, None] - thumbs["train"][None]).mean(-1)
    assert distances.min() > 2


def test_holes_are_fixed_and_stored_for_every_picture_and_family(dataset: Path) -> None:
    data = PreparedDataset.open(dataset)
    for name in ("val", "test"):
        split = data.split(name)
        for family in data.families:
            masks, damaged = split.masks(family), split.damaged(family)
            assert masks.shape == split.images.shape[:3]
            assert np.array_equal(damaged[masks == 0], split.images[masks == 0])


def test_digest_depends_on_content_and_parameters_only(tmp_path: Path) -> None:
    one, again = (prepared(tmp_path / name, num_train=32, num_test=8) for name in ("one", "again"))
    other = prepared(tmp_path / "other", num_train=32, num_test=8, seed=1)
    assert one.manifest.digest == again.manifest.digest != other.manifest.digest


def test_card_is_one_self_contained_page(tmp_path: Path) -> None:
    data = prepared(tmp_path, num_train=16, num_test=4)
    page = (tmp_path / "card.html").read_text()
    assert data.manifest.digest in page
    assert "chelsea.png" in page
    assert "data:image/png" in page
    assert "http://" not in page
    assert "https://" not in page


def test_folder_of_pictures_is_split_by_content(picture_folder: Path) -> None:
    splits = open_source(data_config(source=str(picture_folder)), picture_folder)
    assert all(splits.values())
    names = [photo.name for photos in splits.values() for photo in photos]
    assert sorted(names) == sorted(path.name for path in picture_folder.iterdir())
    where = {photo.sha256: split for split, photos in splits.items() for photo in photos}
    for path in list(picture_folder.iterdir()):
        path.rename(path.with_name("renamed-" + path.name))
    again = open_source(data_config(source=str(picture_folder)), picture_folder)
    assert where == {photo.sha256: split for split, photos in again.items() for photo in photos}


def test_class_folders_are_classes(picture_folder: Path) -> None:
    for number, path in enumerate(sorted(picture_folder.iterdir())):
        (picture_folder / ("cat" if number % 2 else "dog")).mkdir(exist_ok=True)
        path.rename(picture_folder / ("cat" if number % 2 else "dog") / path.name)
    splits = open_source(data_config(source=str(picture_folder), classes="cat"), picture_folder)
    assert {photo.class_name for photos in splits.values() for photo in photos} == {"cat"}


def test_missing_and_empty_folders_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        open_source(data_config(source=str(tmp_path / "none")), tmp_path)
    with pytest.raises(ConfigError, match="holds 0 different pictures"):
        open_source(data_config(source=str(tmp_path)), tmp_path)


def test_unreadable_pictures_are_named(picture_folder: Path) -> None:
    whole = (picture_folder / "03.png").read_bytes()
    (picture_folder / "03.png").write_bytes(whole[: len(whole) // 2])
    (picture_folder / "04.png").write_bytes(b"hello")
    with pytest.raises(ImageError, match=r"2 of 12 pictures cannot be read: .*03\.png.*damaged.*04\.png.*no picture"):
        open_source(data_config(source=str(picture_folder)), picture_folder)


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
    folder = tmp_path / cifar.FOLDER
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
    folder = SHARED / cifar.FOLDER
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
        tar.add(batches, cifar.FOLDER)
        for name in ("../escaped", f"{cifar.FOLDER}/../escaped", "/tmp/kintsugi-escaped"):
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"no"))
    return buffer.getvalue()


@pytest.fixture
def site(archive: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server of the archive that breaks off its first answer half-way; yields its URL and the ranges asked for."""
    ranges: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            ranges.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-") or 0) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(archive) - start))
            self.end_headers()
            self.wfile.write(archive[start : len(archive) // 2 if len(ranges) == 1 else None])

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/cifar.tar.gz", ranges
    server.shutdown()


def test_download_resumes_checks_and_unpacks(site: tuple[str, list[str]], archive: bytes, tmp_path: Path) -> None:
    url, ranges = site
    md5 = hashlib.md5(archive).hexdigest()
    downloads = tmp_path / "downloads"
    with pytest.raises(ConfigError, match="run again"):
        cifar.download(downloads, url=url, md5=md5)
    folder = cifar.download(downloads, url=url, md5=md5)
    assert ranges == ["", f"bytes={len(archive) // 2}-"]
    assert sorted(p.name for p in folder.iterdir()) == [
        "batches.meta", "data_batch_1", "data_batch_2", "manifest.json", "test_batch",
    ]  # fmt: skip
    assert not list(tmp_path.rglob("*escaped*"))
    assert cifar.download(downloads, url="http://127.0.0.1:1/", md5=md5) == folder


def test_a_download_with_another_md5_is_deleted(site: tuple[str, list[str]], tmp_path: Path) -> None:
    site[1].append("")
    with pytest.raises(ConfigError, match="md5"):
        cifar.download(tmp_path / "downloads", url=site[0], md5="0" * 32)
    assert not any((tmp_path / "downloads").iterdir())


def test_a_site_that_is_down_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be reached"):
        cifar.download(tmp_path, url="http://127.0.0.1:1/cifar.tar.gz", md5="0")


def test_tiny_pictures_are_scaled_up_to_the_wanted_size(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    assert prepared(tmp_path, source=str(folder), num_train=8).split("train").images.shape == (8, 64, 64, 3)


def test_equal_pictures_count_once_and_never_straddle_the_split(tmp_path: Path, photographs: list[Bytes]) -> None:
    folder = tmp_path / "doubles"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(photographs[0]).save(folder / f"{number}.png")
    with pytest.raises(ConfigError, match="holds 1 different pictures"):
        open_source(data_config(source=str(folder)), tmp_path)
    for number, photo in enumerate(photographs[1:]):
        Image.fromarray(photo).save(folder / f"other-{number}.png")
    splits = open_source(data_config(source=str(folder)), tmp_path)
    assert [len(photos) for photos in splits.values()] == [1, 1, 1]


def test_hidden_files_are_no_pictures(picture_folder: Path) -> None:
    (picture_folder / "._00.png").write_bytes(b"what a Mac leaves")
    (picture_folder / ".kintsugi").mkdir()
    (picture_folder / ".kintsugi" / "sample.png").write_bytes((picture_folder / "00.png").read_bytes())
    splits = open_source(data_config(source=str(picture_folder)), picture_folder)
    assert sum(len(photos) for photos in splits.values()) == 12


def test_a_batch_without_labels_or_with_foreign_ones_is_named(batches: Path) -> None:
    whole = batch(200, 0)
    (batches / "data_batch_1").write_bytes(pickle.dumps({k: v for k, v in whole.items() if k != b"labels"}))
    with pytest.raises(ConfigError, match=r"data_batch_1 is no CIFAR-10 batch \('labels'\)"):
        list(cifar.read(batches, ()))
    (batches / "data_batch_1").write_bytes(pickle.dumps(whole | {b"labels": [10] * 200}))
    with pytest.raises(ConfigError, match="label 10, but there are 10 classes"):
        list(cifar.read(batches, ()))
