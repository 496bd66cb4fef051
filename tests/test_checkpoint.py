from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from components.train.checkpoint import CheckpointError, Checkpoints, workplace
from components.train.state import TrainingState

MODEL = Path("run/model")


def state(num_steps: int) -> TrainingState:
    tensors = {"generator/weight": torch.full((300,), float(num_steps)), "g_optimizer/0/step": torch.tensor(2.0)}
    return TrainingState(num_steps, tensors, [{"step": num_steps, "g_loss": 0.1}], {"rate_scale": 1.0})


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 100 bytes: the kernel refuses, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(state(7))
    found = Checkpoints(tmp_path).newest()
    assert found is not None
    assert (found.num_steps, found.history, found.facts) == (7, state(7).history, state(7).facts)
    assert found.tensors.keys() == state(7).tensors.keys()
    assert torch.equal(found.under("generator")["weight"], state(7).tensors["generator/weight"])


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() is None
    for number in (1, 9, 10, 200):
        checkpoints.save(state(number))
    assert [path.name[:13] for path in sorted(tmp_path.iterdir())] == ["step-00000010", "step-00000200"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "garbage"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    newest = max(tmp_path.iterdir())
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    damaged: bytes = {
        "cut": bytes(content[:-9]),
        "flipped": bytes(content),
        "empty": b"",
        "garbage": b"no tensors in here",
    }[damage]
    newest.write_bytes(damaged)
    found = checkpoints.newest()
    assert found is not None
    assert found.num_steps == 1
    assert f"warning: the checkpoint {newest} is damaged" in capsys.readouterr().out


def test_a_full_disk_leaves_the_checkpoint_before_intact(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    with full_disk(), pytest.raises(CheckpointError, match=r"step 2 cannot be written .* the one before it is intact"):
        checkpoints.save(state(2))
    found = checkpoints.newest()
    assert found is not None
    assert found.num_steps == 1
    assert len(list(tmp_path.iterdir())) == 1  # nothing half-written beside it


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CheckpointError, match="point KINTSUGI_HOME at a disk that can be written"),
        workplace(tmp_path / "file" / "training", "key", MODEL),
    ):
        pytest.fail("it was made")


def test_the_same_training_twice_at_once_works_in_two_places(tmp_path: Path) -> None:
    with (
        workplace(tmp_path, "key", MODEL) as first,
        workplace(tmp_path, "key", MODEL) as second,
        workplace(tmp_path, "other", MODEL) as o,
    ):
        assert len({first, second, o}) == 3
    with workplace(tmp_path, "key", MODEL) as again:
        assert again == first


def test_a_finished_place_is_found_by_a_retry_and_emptied_for_another_run(tmp_path: Path) -> None:
    with workplace(tmp_path, "key", MODEL) as place:
        Checkpoints(place).save(state(1))
        (place / "samples").mkdir()
        (place / ".step-00000002-0123.safetensors.killed").write_text("half of it")
        Checkpoints(place).finish(MODEL)
    with workplace(tmp_path, "key", MODEL) as retried:
        assert retried == place
        assert Checkpoints(retried).newest() is not None
        assert not list(retried.glob(".step-*"))
    with workplace(tmp_path, "key", Path("another/model")) as fresh:
        assert [path.name for path in fresh.iterdir()] == ["lock"]


@pytest.mark.parametrize(("finished", "days"), [(False, 40), (True, 2)])
def test_places_that_nobody_came_back_to_are_cleared_away(finished: bool, days: int, tmp_path: Path) -> None:
    with workplace(tmp_path, "old", MODEL) as old:
        Checkpoints(old).save(state(1))
        if finished:
            Checkpoints(old).finish(MODEL)
    with workplace(tmp_path, "busy", MODEL) as busy:
        then = time.time() - days * 24 * 3600
        for folder in (old, busy):
            os.utime(folder, (then, then))
        with workplace(tmp_path, "fresh", MODEL):
            assert not old.exists()
            assert busy.exists()
