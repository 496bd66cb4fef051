from __future__ import annotations

import base64
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.config import ConfigError, ReadOrder, Settings
from components.inpainting.dataset import SPLITS, PreparedDataset
from components.inpainting.images import Bytes, decode_image
from components.inpainting.masks import FAMILIES, coverage
from components.manifest import MANIFEST, ManifestError
from components.prepare import ingest, prepare, prepare_here
from components.prepare.facts import QuarantineError
from tests.conftest import SHARED, data_config


def prepared(folder: Path, workers: int = 1, **changes: object) -> PreparedDataset:
    settings = Settings(home=folder / "state", workers=workers)
    return PreparedDataset.open(prepare_here(data_config(**changes), folder, settings))


def lines(data: PreparedDataset, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (data.folder / name).read_text().splitlines()]


def places(data: PreparedDataset) -> dict[str, str]:
    """In which split every photograph stands."""
    return {row["photo"]: split for split in SPLITS for row in data.split(split).index}


def test_sample_splits_share_no_photograph(dataset: Path) -> None:
    data = PreparedDataset.open(dataset)
    photos = {name: {row["photo"] for row in data.split(name).index} for name in SPLITS}
    digests = {name: {row["sha256"] for row in data.split(name).index} for name in SPLITS}
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


def test_holes_are_fixed_stored_and_hashed_for_every_picture_and_family(dataset: Path) -> None:
    data = PreparedDataset.open(dataset)
    for name in ("val", "test"):
        split = data.split(name)
        images = np.asarray(split.images)
        for family in data.families:
            masks, damaged = split.masks(family), split.damaged(family)
            assert masks.shape == images.shape[:3]
            assert np.array_equal(damaged[masks == 0], images[masks == 0])
            assert len(data.manifest.facts["holes"][f"{name}/{family}"]) == 64
    shares = coverage(data.split("test").masks("strokes"))
    assert FAMILIES["strokes"].low <= shares.min() < 0.2
    assert 0.3 < shares.max() < FAMILIES["strokes"].high


def test_digest_depends_on_content_and_parameters_only(many: Path, tmp_path: Path) -> None:
    """Not on workers, shards, chunks, the order of work or the state folder."""
    chosen: dict[str, Any] = {"source": str(many), "num_train": 300, "num_test": 8, "max_quarantine": 1}
    (many / "broken.png").write_bytes(b"hello")
    one = prepared(tmp_path / "one", **chosen)
    two = prepared(tmp_path / "two", workers=2, **chosen)
    three = prepared(tmp_path / "three", workers=2, num_shards=3, **chosen)
    other = prepared(tmp_path / "other", seed=1, **chosen)
    assert one.manifest.digest == two.manifest.digest == three.manifest.digest != other.manifest.digest
    assert one.manifest.facts == two.manifest.facts == three.manifest.facts


def test_the_same_pictures_elsewhere_have_the_same_digest(many: Path, tmp_path: Path) -> None:
    one = prepared(tmp_path / "one", source=str(many), num_train=32)
    moved = many.rename(tmp_path / "moved")
    for path in moved.rglob("*.*"):
        os.utime(path, (0, 0))
    two = prepared(tmp_path / "two", source=str(moved), num_train=32)
    assert one.manifest.digest == two.manifest.digest


def test_adding_pictures_moves_none_of_the_old_ones(many: Path, tmp_path: Path) -> None:
    added = [many / "cat" / f"{number:03}.png" for number in range(2, 60, 6)]
    kept = [path.read_bytes() for path in added]
    for path in added:
        path.unlink()
    before = places(prepared(tmp_path / "before", source=str(many), num_train=0, num_val=99, num_test=99))
    for path, content in zip(added, kept, strict=True):
        path.write_bytes(content)
    after = places(prepared(tmp_path / "after", source=str(many), num_train=0, num_val=99, num_test=99))
    assert len(after) > len(before) > 90
    assert all(after[name] == split for name, split in before.items() if name in after)
    assert len(before.keys() - after.keys()) <= 2  # what resembles a newcomer in another split steps aside


def test_near_duplicates_never_straddle_the_split(many: Path, tmp_path: Path) -> None:
    """Every test picture again, smaller and paler: whatever falls into training is left out, and said so."""
    first = prepared(tmp_path / "first", source=str(many), num_train=0, num_val=99, num_test=99)
    tested = [name for name, split in places(first).items() if split == "test"]
    assert len(tested) >= 5
    for name in tested:
        picture = Image.open(many / name).convert("RGB")
        pale = Image.fromarray(np.rint(np.asarray(picture) * 0.95 + 8).astype(np.uint8))
        pale.resize((72, 63)).save(many / "cat" / f"again-{Path(name).stem}.png")
    data = prepared(tmp_path / "second", source=str(many), num_train=0, num_val=99, num_test=99)
    twins = {name: split for name, split in places(data).items() if "again-" in name}
    assert set(twins.values()) <= {"test"}
    told = [row for row in lines(data, "duplicates.jsonl") if "again-" in row["name"]]
    assert len(told) + len(twins) == len(tested)
    assert all(row["kind"] == "near duplicate" and row["of_split"] == "test" for row in told)
    assert set(tested) <= places(data).keys()


def test_equal_files_count_once(many: Path, tmp_path: Path) -> None:
    content = (many / "cat" / "002.png").read_bytes()
    for number in range(3):
        (many / f"copy-{number}.png").write_bytes(content)
    data = prepared(tmp_path, source=str(many), num_train=0)
    assert data.manifest.facts["left_out"]["duplicate"] == 3
    names = {row["name"] for row in lines(data, "duplicates.jsonl") if row["kind"] == "duplicate"}
    assert names == {"copy-0.png", "copy-1.png", "copy-2.png"}


def test_unusable_pictures_are_quarantined_with_a_reason(many: Path, tmp_path: Path, photographs: list[Bytes]) -> None:
    whole = (many / "cat" / "002.png").read_bytes()
    (many / "cut.png").write_bytes(whole[: len(whole) // 2])
    (many / "text.png").write_bytes(b"hello")
    Image.new("RGB", (64, 64), "white").save(many / "white.png")
    Image.fromarray(photographs[0][:10, :12]).save(many / "tiny.png")
    frames = [Image.fromarray(photo[:50, :50]) for photo in photographs]
    frames[0].save(many / "moving.gif", save_all=True, append_images=frames[1:])
    (many / "gone.png").symlink_to(many / "nowhere.png")
    (many / "LICENSE").write_text("yours")
    data = prepared(tmp_path, source=str(many), max_quarantine=0.1)
    told = {row["name"]: row["reason"] for row in lines(data, "quarantine.jsonl")}
    assert told.keys() == {"cut.png", "text.png", "white.png", "tiny.png", "moving.gif", "gone.png"}
    for name, words in {"cut.png": "damaged", "text.png": "no picture", "white.png": "blank", "tiny.png": "12x10",
                        "moving.gif": "several frames", "gone.png": "link to nothing"}.items():  # fmt: skip
        assert words in told[name]
    assert data.manifest.facts["left_out"]["unusable"] == 6
    assert "LICENSE" in data.manifest.facts["licence"]


def test_above_the_limit_the_step_fails_naming_files_and_table(many: Path, tmp_path: Path) -> None:
    for number in range(9):
        (many / f"bad-{number}.png").write_bytes(b"hello")
    with pytest.raises(QuarantineError, match=r"9 of 129 .*_quarantine = 0\.05: bad-0\.png: .*; and others") as raised:
        prepared(tmp_path, source=str(many))
    table = Path(str(raised.value).split("listed in ")[1].split(")")[0])
    assert len(table.read_text().splitlines()) == 9
    assert not (tmp_path / "dataset").exists()
    for path in many.glob("bad-*"):
        path.unlink()
    assert prepared(tmp_path, source=str(many)).manifest.facts["left_out"]["unusable"] == 0


def test_odd_pictures_are_handled_and_counted(many: Path, tmp_path: Path, photographs: list[Bytes]) -> None:
    Image.fromarray(photographs[0][:90]).convert("CMYK").save(many / "cmyk.jpg")
    Image.fromarray(photographs[1][:90]).convert("P").save(many / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photographs[2][:90, :150]).save(many / "turned.jpg", exif=exif)
    data = prepared(tmp_path, source=str(many), num_train=0, num_val=99, num_test=99)
    assert {"CMYK": 1, "palette": 1, "EXIF-rotated": 1}.items() <= data.manifest.facts["handled"].items()
    rows = {row["photo"]: row for split in SPLITS for row in data.split(split).index}
    assert (rows["turned.jpg"]["width"], rows["turned.jpg"]["height"]) == (90, 150)


@pytest.mark.parametrize("crop", ["center", "stretch", "random"])
def test_crop_policies(crop: str, tmp_path: Path) -> None:
    """A picture whose left third is red and right third is blue: who cuts, sees less of them."""
    for number in range(4):
        wide = np.zeros((100, 300, 3), np.uint8)
        wide[:, :100, 0] = wide[:, 200:, 2] = 255
        wide[:, 100:200] = np.random.default_rng(number).integers(0, 256, (100, 100, 3))
        (tmp_path / "wide").mkdir(exist_ok=True)
        Image.fromarray(wide).save(tmp_path / "wide" / f"{number}.png")
    data = prepared(tmp_path, source=str(tmp_path / "wide"), crop=crop, num_train=16)
    images = np.asarray(data.split("train").images)
    left = (images[:, :, :4, 0].mean((1, 2)) > 200) & (images[:, :, :4, 2].mean((1, 2)) < 50)
    assert left.any() == (crop != "center")
    assert len(images) == (16 if crop == "random" else 2)


def test_image_sizes_from_32_to_512(many: Path, tmp_path: Path) -> None:
    for size in (32, 512):
        data = prepared(tmp_path / str(size), source=str(many), image_size=size, num_train=8, masks="center_box")
        assert data.split("train").images.shape == (8, size, size, 3)
        assert data.split("test").masks("center_box").sum(axis=(1, 2)).max() == (size // 2) ** 2


def test_every_family_can_be_prepared(many: Path, tmp_path: Path) -> None:
    data = prepared(tmp_path, source=str(many), masks=",".join(FAMILIES), num_test=6, num_val=4, num_train=8)
    assert data.families == tuple(FAMILIES)
    masks = data.mixture.draw(26, np.random.default_rng(0))
    assert masks.shape == (26, 64, 64)


def test_own_masks_are_split_and_trained_with(many: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for number in range(20):
        mask = np.zeros((100, 140), np.uint8)
        mask[: 10 + 3 * number, 30:90] = 255
        Image.fromarray(mask).save(own / f"{number}.png")
    data = prepared(tmp_path, source=str(many), masks="custom:3,box", mask_source=str(own))
    drawn = data.mixture.draw(40, np.random.default_rng(0))
    assert len({mask.tobytes() for mask in drawn}) > 15
    evaluated = {m.tobytes() for m in data.split("test").masks("custom")}
    trained = {m.tobytes() for mask in data.mixture.custom for m in (mask, mask[:, ::-1])}  # type: ignore[union-attr]
    assert not evaluated & trained


def test_own_masks_that_are_none_are_named(many: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(ConfigError, match=r"data_mask_source: .* holds no mask with both white"):
        prepared(tmp_path, source=str(many), masks="custom", mask_source=str(own))
    (own / "bad.png").write_bytes(b"hello")
    with pytest.raises(ConfigError, match=r"data_mask_source: bad\.png: this is no picture"):
        prepared(tmp_path, source=str(many), masks="custom", mask_source=str(own))


def test_card_is_one_self_contained_page(many: Path, tmp_path: Path) -> None:
    (many / "broken.png").write_bytes(b"hello")
    data = prepared(tmp_path, source=str(many), num_train=16, num_test=6)
    page = (tmp_path / "card.html").read_text()
    for expected in (data.manifest.digest, "broken.png", "cat", "dog", "strokes", "data:image/png", "Licence"):
        assert expected in page
    assert "http://" not in page
    assert "https://" not in page
    assert "Drift" not in page


def test_drift_against_an_earlier_dataset(many: Path, tmp_path: Path) -> None:
    first = prepared(tmp_path / "first", source=str(many))
    again = prepared(tmp_path / "again", source=str(many), reference=str(first.folder))
    assert again.manifest.made_from["reference"] == first.manifest.digest
    assert again.manifest.digest == first.manifest.digest
    page = (tmp_path / "again" / "card.html").read_text()
    assert page.count("stable</td>") == 7
    for path in many.rglob("*.*"):
        Image.open(path).convert("RGB").point(lambda value: value // 3).save(path)
    prepared(tmp_path / "dark", source=str(many), reference=str(first.folder))
    assert "drifted</td>" in (tmp_path / "dark" / "card.html").read_text()
    with pytest.raises(ConfigError, match=r"data_reference: .* is no dataset .* manifest\.json"):
        prepared(tmp_path / "none", source=str(many), reference=str(many))


def test_too_few_pictures_say_so(tmp_path: Path, photographs: list[Bytes]) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    with pytest.raises(ConfigError, match="holds no file that may be a picture"):
        prepared(tmp_path, source=str(folder))
    for number in range(4):
        Image.fromarray(photographs[0]).save(folder / f"{number}.png")
    with pytest.raises(ConfigError, match="holds 1 different usable pictures"):
        prepared(tmp_path, source=str(folder))
    for number, photo in enumerate(photographs[1:]):
        Image.fromarray(photo).save(folder / f"other-{number}.png")
    assert set(prepared(tmp_path, source=str(folder)).manifest.facts["photos"].values()) == {1}


def test_parts_must_be_whole_and_of_one_reading(many: Path, tmp_path: Path) -> None:
    config, settings = data_config(source=str(many), num_shards=2), Settings(home=tmp_path / "state", workers=1)
    parts = [tmp_path / "1", tmp_path / "2"]
    for shard, part in zip(config.shards, parts, strict=True):
        ingest(ReadOrder(config=config, shard=shard), part, part.with_suffix(".html"), settings)
    target = (tmp_path / "dataset", tmp_path / "card.html")
    with pytest.raises(ConfigError, match="the parts given are 1/2;"):
        prepare(config, parts[:1], *target, settings)
    with pytest.raises(ConfigError, match="other data parameters"):
        prepare(data_config(source=str(many), num_shards=2, seed=5), parts, *target, settings)
    (parts[1] / MANIFEST).unlink()
    with pytest.raises(ManifestError, match="holds no finished part"):
        prepare(config, parts, *target, settings)


def test_every_shard_has_a_page_that_says_what_was_read(many: Path, tmp_path: Path) -> None:
    (many / "cat" / "broken.png").write_bytes(b"no picture")
    (many / "dog" / "notes").write_text("no picture either, and nothing in its name says that it is one")
    config, settings = data_config(source=str(many), num_shards=2), Settings(home=tmp_path / "state", workers=1)
    usable, unusable, other, classes = 0, 0, 0, Counter[str]()
    for number, shard in enumerate(config.shards):
        part, report = tmp_path / str(number), tmp_path / f"{number}.html"
        ingest(ReadOrder(config=config, shard=shard), part, report, settings)
        page = report.read_text()
        kept, total = map(int, re.findall(r"(\d+) of (\d+) files are pictures that can be used", page)[0])
        usable, unusable = usable + kept, unusable + int(re.findall(r"Unusable: (\d+)\.", page)[0])
        other += int(re.findall(r"no pictures: (\d+)\.", page)[0])
        rows = [json.loads(line) for path in sorted(part.glob("*.jsonl")) for line in path.read_text().splitlines()]
        assert kept == sum(not row["problem"] for row in rows)
        assert ("cat/broken.png" in page) == any(row["name"] == "cat/broken.png" for row in rows)
        classes.update({name: int(count) for name, count in re.findall(r"<td>(cat|dog)</td><td>(\d+)</td>", page)})
        assert f"shard {shard}" in page and str(many) in page
        sheet = decode_image(base64.b64decode(re.findall(r"data:image/png;base64,([^\"]+)", page)[0]))
        crops = np.concatenate([np.fromfile(path, np.uint8) for path in sorted(part.glob("*.bin"))]).reshape(
            -1, 64, 64, 3
        )
        assert len(crops) == kept <= total
        first, last = sheet[4:68, 4:68], sheet[140:204, 480:544]
        assert np.array_equal(first, crops[0]) and np.array_equal(last, crops[-1])
    assert (usable, unusable, other, classes) == (120, 1, 1, {"cat": 60, "dog": 60})


def test_a_shard_of_which_nothing_can_be_used_has_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no picture")
    order = ReadOrder(config=data_config(source=str(folder)))
    ingest(order, tmp_path / "part", tmp_path / "part.html", Settings(home=tmp_path / "state", workers=1))
    page = (tmp_path / "part.html").read_text()
    assert "0 of 1 files" in page and "broken.png" in page and "<img" not in page


def test_missing_classes_are_named(many: Path, picture_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no class 'dog'; it has none at all, so data_classes must be auto"):
        prepared(tmp_path, source=str(picture_folder), classes="dog")
    with pytest.raises(ConfigError, match="data_classes: the source has no class 'dgo'; did you mean 'dog'"):
        prepared(tmp_path, source=str(many), classes="cat,dgo")
    data = prepared(tmp_path, source=str(many), classes="cat")
    assert data.manifest.facts["classes"].keys() == {"cat"}


def test_the_digest_covers_the_parameters(many: Path, tmp_path: Path) -> None:
    digests = {
        prepared(tmp_path / masks, source=str(many), masks=masks).manifest.digest
        for masks in ("box,text", "box:9,text", "text,box")
    }
    assert len(digests) == 3


def test_old_test_pictures_keep_their_holes_when_the_collection_grows(many: Path, tmp_path: Path) -> None:
    added = [path for path in sorted(many.rglob("*.png")) if path.stem > "080"]
    kept = {path: path.read_bytes() for path in added}
    for path in added:
        path.unlink()
    before = prepared(tmp_path / "before", source=str(many), num_test=99).split("test")
    for path, content in kept.items():
        path.write_bytes(content)
    after = prepared(tmp_path / "after", source=str(many), num_test=99).split("test")
    rows = {(row["sha256"], row["crop"]): number for number, row in enumerate(after.index)}
    same = [(i, rows[row["sha256"], row["crop"]]) for i, row in enumerate(before.index)
            if (row["sha256"], row["crop"]) in rows]  # fmt: skip
    assert len(same) >= 5
    assert all(np.array_equal(before.masks("strokes")[i], after.masks("strokes")[j]) for i, j in same)


def test_cats_and_dogs_at_128_pixels_with_the_papers_holes(tmp_path: Path) -> None:
    folder = SHARED / "pets128" / "val"
    if not folder.exists():
        pytest.skip("no cat and dog photographs beside the repository")
    data = prepared(tmp_path, workers=2, source=str(folder), image_size=128, masks="center_box,text", num_train=0)
    assert sum(data.manifest.facts["photos"].values()) + sum(data.manifest.facts["left_out"].values()) == 370
    assert data.manifest.facts["left_out"]["unusable"] == 0
    assert set(coverage(data.split("test").masks("center_box"))) == {0.25}
