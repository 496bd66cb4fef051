"""``kintsugi inpaint``: files and folders, masks by name, formats, what is never written over, what failed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.inpainting.images import Bytes, read_image
from tests.conftest import Kintsugi
from tests.endpoint import Answer, Endpoint, run_endpoint
from tests.test_cli import assert_one_sentence


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with run_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def archive(tmp_path: Path, photographs: list[Bytes]) -> Path:
    """Pictures of several formats in two levels, their masks, and a file that is no picture."""
    pictures, masks = tmp_path / "in", tmp_path / "masks"
    for number, name in enumerate(("a.png", "deep/b.jpg", "deep/c.tif")):
        for folder in (pictures, masks):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo = photographs[number]
        Image.fromarray(photo).save(pictures / name)
        Image.fromarray(np.full(photo.shape[:2], 255, np.uint8)).save((masks / name).with_suffix(".png"))
    (pictures / "notes.txt").write_text("not a picture")
    return pictures


def test_folders_are_repaired_under_masks_of_the_same_names(
    endpoint: Endpoint, archive: Path, kintsugi: Kintsugi, tmp_path: Path
) -> None:
    output = archive / "repaired"  # inside of what is read, and not read again
    command = ("inpaint", str(archive), "--mask", str(tmp_path / "masks"), "-o", str(output), "--url", endpoint.url)
    result = kintsugi(*command, "--grow-mask", "2", "--jobs", "2")
    assert result.returncode == 0, result.stderr
    assert "3 repaired by version 7, 0 failed" in result.stdout
    for name in ("a.png", "deep/b.jpg", "deep/c.tif"):
        assert np.array_equal(read_image((output / name).with_suffix(".png")), 255 - read_image(archive / name))
    assert {request["parts"]["grow_mask"] for request in endpoint.requests} == {b"2"}
    assert all(request["parts"]["mask"] for request in endpoint.requests)
    (output / "a.png").unlink()
    again = kintsugi(*command, "--skip-existing")
    assert "1 repaired by version 7, 0 failed, 2 skipped" in again.stdout
    assert len(endpoint.requests) == 4


def test_a_bad_picture_is_named_and_the_others_go_on(
    endpoint: Endpoint, archive: Path, kintsugi: Kintsugi, tmp_path: Path
) -> None:
    (tmp_path / "masks" / "a.png").unlink()
    endpoint.script = [Answer.problem(422, "image: the picture is damaged.")]
    command = ("inpaint", str(archive), "--mask", str(tmp_path / "masks"), "-o", str(tmp_path / "out"))
    result = kintsugi(*command, "--url", endpoint.url, "--jobs", "1")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert f"{archive / 'a.png'}: {tmp_path / 'masks'} holds no mask of the name a" in lines
    assert f"{archive / 'deep/b.jpg'}: image: the picture is damaged." in lines
    assert lines[-1].startswith("1 repaired by version 7, 2 failed")
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["c.png"]


def test_what_is_searched_for_must_be_asked_for(
    endpoint: Endpoint, archive: Path, kintsugi: Kintsugi, tmp_path: Path
) -> None:
    command = ("inpaint", str(archive / "a.png"), "-o", str(tmp_path / "out.png"), "--url", endpoint.url)
    refused = kintsugi(*command)
    assert refused.returncode == 1 and "give its mask by --mask, or --blind" in refused.stdout
    assert not (tmp_path / "out.png").exists()
    assert kintsugi(*command, "--blind").returncode == 0
    assert (tmp_path / "out.png").exists()
    both = kintsugi(*command, "--blind", "--mask", str(archive / "a.png"))
    assert_one_sentence(both, "give either that or --mask")


def test_nothing_is_written_over(endpoint: Endpoint, archive: Path, kintsugi: Kintsugi, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in archive.rglob("*.*")}
    mask = tmp_path / "masks"

    def refused(*arguments: str, words: str) -> None:
        assert_one_sentence(kintsugi("inpaint", *arguments, "--url", endpoint.url), words)

    refused(str(archive), "--mask", str(mask), "-o", str(archive), words="is not written over")
    picture = str(archive / "a.png")
    refused(picture, "--mask", str(mask / "a.png"), "-o", picture, words="is not written over")
    refused(picture, "--mask", str(mask / "a.png"), "-o", str(mask / "a.png"), words="is not written over")
    (archive / "a.jpg").write_bytes((archive / "deep/b.jpg").read_bytes())
    refused(str(archive), "--blind", "-o", str(tmp_path / "out"), words="2 pictures would all be written to")
    refused(picture, str(archive / "a.jpg"), "--blind", "-o", str(mask / "a.png"), words="need a folder")
    refused(str(mask), "--blind", "-o", str(tmp_path / "out"), "--mask", picture, words="give either that or --mask")
    refused(picture, "--blind", "-o", str(tmp_path / "out.gif"), words="name a PNG file")
    refused(
        picture,
        "--blind",
        "--format",
        "webp",
        "-o",
        str(tmp_path / "o.png"),
        words="name a WEBP file, e.g. -o out.webp",
    )
    (tmp_path / "empty").mkdir()
    refused(str(tmp_path / "empty"), "--blind", "-o", str(tmp_path / "out"), words="no picture in")
    refused(str(tmp_path / "none.png"), "--blind", "-o", str(tmp_path / "out.png"), words="none.png is no picture file")
    assert {path: path.read_bytes() for path in before} == before
    assert not endpoint.requests


def test_an_endpoint_that_is_down(archive: Path, kintsugi: Kintsugi, tmp_path: Path) -> None:
    command = ("inpaint", str(archive), "--blind", "-o", str(tmp_path / "out"), "--url", "http://127.0.0.1:1")
    assert_one_sentence(kintsugi(*command), "http://127.0.0.1:1 does not answer")
