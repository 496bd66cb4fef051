from __future__ import annotations

from pathlib import Path

import pytest

from components.manifest import (
    ManifestError,
    complete_folder,
    folder_digest,
    read_manifest,
    write_file,
    write_json,
)


def test_a_folder_is_complete_with_its_manifest(tmp_path: Path) -> None:
    with complete_folder(tmp_path / "thing", "thing") as draft:
        (draft.path / "a.txt").write_text("a")
        draft.facts = {"size": 1}
        draft.made_from = {"other": "digest"}
    manifest = read_manifest(tmp_path / "thing", "thing")
    assert manifest.facts == {"size": 1}
    assert manifest.made_from == {"other": "digest"}
    assert manifest.digest == folder_digest(tmp_path / "thing")
    assert manifest.code_version.startswith("0.")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_folder_is_absent_and_the_old_one_stays(error: type[BaseException], tmp_path: Path) -> None:
    with complete_folder(tmp_path / "thing", "thing") as draft:
        (draft.path / "a.txt").write_text("old")
    with pytest.raises(error), complete_folder(tmp_path / "thing", "thing") as draft:
        (draft.path / "a.txt").write_text("new")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]
    assert (tmp_path / "thing" / "a.txt").read_text() == "old"


def test_a_finished_folder_replaces_the_old_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with complete_folder(tmp_path / "thing", "thing") as draft:
            (draft.path / name).write_text("")
    assert sorted(path.name for path in (tmp_path / "thing").iterdir()) == ["manifest.json", "new"]


def test_digest_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = folder_digest(tmp_path)
    (tmp_path / "a").write_text("2")
    second = folder_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, folder_digest(tmp_path)}) == 3


def test_what_is_no_finished_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no finished dataset"):
        read_manifest(tmp_path, "dataset")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path, "dataset")
    (tmp_path / "manifest.json").write_text('{"kind": "model", "digest": "", "code_version": ""}')
    with pytest.raises(ManifestError, match="holds a model, not a dataset"):
        read_manifest(tmp_path, "dataset")
    (tmp_path / "manifest.json").write_text(
        '{"kind": "dataset", "digest": "", "code_version": "", "schema_version": 99}'
    )
    with pytest.raises(ManifestError, match="newer Kintsugi"):
        read_manifest(tmp_path, "dataset")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_file(tmp_path / "deep" / "page.html", "whole")
    assert (tmp_path / "deep" / "page.html").read_text() == "whole"
    with pytest.raises(TypeError):
        write_file(tmp_path / "deep" / "page.html", 7)  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.html"]


def test_a_score_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "scores.json", {"ssim": float("nan")})
