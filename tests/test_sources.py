from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from components.config import ConfigError, Settings
from components.inpainting.dataset import PreparedDataset
from components.prepare import prepare_here, remote
from components.prepare.entries import Entry, VanishedError, read_entry
from components.prepare.sources import Source, open_source
from tests.conftest import data_config
from tests.loopback import serve_http


def opened(place: str | Path, work: Path, **changes: object) -> Source:
    return open_source(data_config(source=str(place), **changes), work, work / "downloads")


def digest(place: str | Path, folder: Path) -> str:
    """The digest of the dataset made of a source."""
    config = data_config(source=str(place), num_train=16)
    return PreparedDataset.open(
        prepare_here(config, folder, Settings(home=folder / "state", workers=2))
    ).manifest.digest


def test_a_folder_is_listed_in_the_order_of_names(picture_folder: Path, tmp_path: Path) -> None:
    (picture_folder / "a").mkdir()
    (picture_folder / "05.png").rename(picture_folder / "a" / "05.PNG")
    (picture_folder / "notes.txt").write_text("no picture")
    source = opened(picture_folder, tmp_path / "work")
    names = [entry.name for entry in source.entries()]
    assert names == [f"{number:02}.png" for number in range(12) if number != 5] + ["a/05.PNG"]
    assert names == [entry.name for entry in source.entries()]
    assert {entry.name: entry.class_name for entry in source.entries()}["a/05.PNG"] == "a"


def test_class_folders_are_classes_and_can_be_chosen(picture_folder: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(picture_folder.iterdir())):
        (picture_folder / ("cat" if number % 2 else "dog")).mkdir(exist_ok=True)
        path.rename(picture_folder / ("cat" if number % 2 else "dog") / path.name)
    chosen = opened(picture_folder, tmp_path / "work", classes="cat")
    assert {entry.class_name for entry in chosen.entries()} == {"cat"}
    assert {e.class_name for e in opened(picture_folder, tmp_path / "work").entries()} == {"cat", "dog"}


def test_odd_names_and_links_are_listed_and_loops_end(picture_folder: Path, tmp_path: Path) -> None:
    picture = (picture_folder / "00.png").read_bytes()
    for name in (b"\xff.png", b"a\nb.png"):
        (Path(os.fsdecode(bytes(picture_folder) + b"/" + name))).write_bytes(picture + name)
    (picture_folder / "self.png").symlink_to("self.png")
    (picture_folder / "loop").symlink_to(picture_folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked.png").write_bytes(picture + b"2")
    (picture_folder / "cat").symlink_to(elsewhere)
    entries = {entry.name: entry for entry in opened(picture_folder, tmp_path / "work").entries()}
    assert {"\ufffd.png", "a\ufffdb.png", "cat/linked.png", "self.png"} <= entries.keys()
    assert not any(name.startswith("loop") for name in entries)
    assert entries["self.png"].problem == "a link to nothing"
    (picture_folder / "self.png").unlink()
    assert digest(picture_folder, tmp_path / "made")


def test_missing_sources_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data_source: there is no file or folder .*give a folder or archive"):
        opened(tmp_path / "none", tmp_path)
    with pytest.raises(ConfigError, match="there is no file or folder"):
        opened(f"file://{tmp_path}/none", tmp_path)
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(ConfigError, match=r"notes\.txt' is a file, but no tar or zip"):
        opened(tmp_path / "notes.txt", tmp_path)


def test_hidden_files_are_no_pictures(picture_folder: Path, tmp_path: Path) -> None:
    (picture_folder / "._00.png").write_bytes(b"what a Mac leaves")
    (picture_folder / ".kintsugi").mkdir()
    (picture_folder / ".kintsugi" / "sample.png").write_bytes((picture_folder / "00.png").read_bytes())
    (picture_folder / "__MACOSX").mkdir()
    (picture_folder / "__MACOSX" / "00.png").write_bytes(b"what a Mac packs")
    assert len(list(opened(picture_folder, tmp_path / "work").entries())) == 12


def test_one_collection_has_one_digest_however_it_comes(picture_folder: Path, tmp_path: Path) -> None:
    """As a folder, a file:// URI, a plain and a packed archive."""
    expected = digest(picture_folder, tmp_path / "folder")
    assert digest(f"file://{picture_folder}", tmp_path / "uri") == expected
    for mode in ("w", "w:gz"):
        archive = tmp_path / f"pictures.{mode[2:]}"
        with tarfile.open(archive, mode) as tar:
            tar.add(picture_folder, ".")
        assert digest(archive, tmp_path / f"tar-{mode[2:]}") == expected


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server of a folder, as it comes with Python: pages that list folders, no ranges."""
    root = tmp_path / "site"
    root.mkdir()
    with serve_http(SimpleHTTPRequestHandler, directory=str(root)) as host:
        yield f"http://{host}", root


def test_pictures_and_archives_from_the_web(site: tuple[str, Path], picture_folder: Path, tmp_path: Path) -> None:
    url, root = site
    expected = digest(picture_folder, tmp_path / "folder")
    with tarfile.open(root / "pictures.tar.gz", "w:gz") as tar:
        tar.add(picture_folder, "photos")
        padding = tarfile.TarInfo("padding.txt")  # larger than what is read ahead
        padding.size = 8 << 20
        tar.addfile(padding, io.BytesIO(os.urandom(padding.size)))
    listed = opened(f"{url}/pictures.tar.gz", tmp_path / "work")
    assert [entry.name for entry in listed.entries()] == [f"photos/{number:02}.png" for number in range(12)]
    picture_folder.rename(root / "photos")
    assert digest(f"{url}/photos/", tmp_path / "web") == expected


def test_the_web_says_what_is_wrong(site: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.tar\.gz\?\.\.\. does not exist; look at the address"):
        opened(f"{site[0]}/none.tar.gz?token=secret", tmp_path / "work")
    with pytest.raises(ConfigError, match="cannot be reached"):
        opened("http://127.0.0.1:1/pictures.tar.gz", tmp_path / "work")
    with pytest.raises(VanishedError, match="gone since"):
        read_entry(Entry("a.png", f"{site[0]}/a.png"), tmp_path)


def test_a_stumbling_server_is_asked_again_and_a_broken_one_named(tmp_path: Path) -> None:
    asked: list[str] = []

    class Stumbling(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/broken.png" or len(asked) < 3:
                self.send_error(503)
            else:
                super().do_GET()

    (tmp_path / "a.png").write_bytes(b"a picture")
    with serve_http(Stumbling, directory=str(tmp_path)) as host:
        url = f"http://{host}"
        assert read_entry(Entry("a.png", f"{url}/a.png"), tmp_path) == b"a picture"
        assert len(asked) >= 3
        with pytest.raises(ConfigError, match=r"cannot be reached .*run again"):
            read_entry(Entry("broken.png", f"{url}/broken.png"), tmp_path)


def test_batches_from_the_web(site: tuple[str, Path], tmp_path: Path) -> None:
    from tests.test_cifar import batch

    labels = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (site[1] / "batches.meta").write_bytes(pickle.dumps({"label_names": labels}, protocol=2))
    for seed, name in enumerate(["data_batch_1", "test_batch"]):
        (site[1] / name).write_bytes(pickle.dumps(batch(40, seed), protocol=2))
    entries = list(opened(site[0], tmp_path / "work").entries())
    assert {(entry.class_name, entry.splits) for entry in entries} == {
        (name, splits) for name in ("cat", "dog") for splits in ("test", "val,train")
    }


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket on an S3 server of our own."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    wanted = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    boto3.client("s3").create_bucket(Bucket="pictures")
    yield "pictures"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


def test_pictures_and_archives_from_s3(bucket: str, picture_folder: Path, tmp_path: Path) -> None:
    import boto3

    store = boto3.client("s3")
    expected = digest(picture_folder, tmp_path / "folder")
    for path in picture_folder.iterdir():
        store.upload_file(str(path), bucket, f"photos/{path.name}")
    with tarfile.open(tmp_path / "pictures.tar", "w") as tar:
        tar.add(picture_folder, ".")
    store.upload_file(str(tmp_path / "pictures.tar"), bucket, "pictures.tar")
    assert digest(f"s3://{bucket}/photos", tmp_path / "s3") == expected
    assert digest(f"s3://{bucket}/pictures.tar", tmp_path / "s3-tar") == expected


def test_s3_says_what_is_wrong(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"s3://pictures/nothing holds nothing, or does not exist"):
        list(opened(f"s3://{bucket}/nothing", tmp_path).entries())
    with pytest.raises(ConfigError, match=r"s3://no-such-bucket/a\.zip (does not exist|cannot be reached)"):
        opened("s3://no-such-bucket/a.zip", tmp_path)


def test_a_missing_driver_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("Install the driver")

    monkeypatch.setattr(remote, "_system", missing)
    with pytest.raises(ConfigError, match=r"gs:// needs a driver .* pip install 'kintsugi\[gs\]'"):
        opened("gs://bucket/photos", tmp_path)
    with pytest.raises(ConfigError, match=r"abfs:// needs a driver .* Install the driver"):
        opened("abfs://bucket/photos", tmp_path)


def test_an_unknown_protocol_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nonsense://x/batches.meta cannot be opened .*known are"):
        opened("nonsense://x", tmp_path)
