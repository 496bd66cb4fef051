from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from components.journal import Entry, Journal, JournalBusy, Refused, last_entry, remove, replay

Send = Callable[[list[Entry]], None]


class Receiver:
    """Takes entries, and keeps what it took: steps of metrics, and the kind of everything else."""

    def __init__(self) -> None:
        self.taken: list[object] = []
        self.group_sizes: list[int] = []

    def __call__(self, entries: list[Entry]) -> None:
        self.group_sizes.append(len(entries))
        self.taken += [entry.payload.get("step", entry.kind) for entry in entries]


def absent(entries: list[Entry]) -> None:
    raise ConnectionError("nobody listens")


def log(journal: Journal, step: int) -> bool:
    return journal.append(f"metrics:{step}", "metrics", {"step": step})


def opened(folder: Path, send: Send) -> Journal:
    return Journal(folder, send, linger=0.01)


def test_entries_arrive_once_in_order_with_their_files_and_times(tmp_path: Path) -> None:
    arrived: list[tuple[str, str]] = []

    def send(entries: list[Entry]) -> None:
        for entry in entries:
            text = (entry.files / "page.html").read_text() if entry.files else ""
            arrived.append((entry.kind, text))
            times.append(entry.time)

    times: list[int] = []
    before = time.time() * 1000
    journal = opened(tmp_path, send)
    journal.append("", "tags", {"a": "b"})
    journal.append("", "files", {}, lambda files: (files / "page.html").write_text("hello"))
    log(journal, 1)
    assert journal.close()
    assert arrived == [("tags", ""), ("files", "hello"), ("metrics", "")]
    assert before - 1 <= times[0] <= times[1] <= times[2] <= time.time() * 1000
    assert not any((tmp_path / "files").iterdir())


def test_what_has_an_id_that_is_there_is_dropped_and_its_files_too(tmp_path: Path) -> None:
    receiver = Receiver()
    journal = opened(tmp_path, receiver)
    assert [log(journal, step) for step in (1, 2, 2)] == [True, True, False]
    assert journal.close()
    resumed = opened(tmp_path, receiver)
    assert [log(resumed, step) for step in (1, 2, 3)] == [False, False, True]
    assert not resumed.append("metrics:3", "files", {}, lambda files: pytest.fail("it was written"))
    assert resumed.append("", "tags", {})
    assert resumed.append("", "tags", {})
    assert resumed.close()
    assert receiver.taken == [1, 2, 3, "tags", "tags"]


def test_metrics_travel_together_and_everything_else_alone(tmp_path: Path) -> None:
    gate, receiver = threading.Event(), Receiver()

    def send(entries: list[Entry]) -> None:
        gate.wait()
        receiver(entries)

    journal = opened(tmp_path, send)
    journal.append("", "start", {})
    for step in range(250):
        log(journal, step)
    journal.append("", "tags", {})
    journal.append("", "tags", {})
    log(journal, 250)
    gate.set()
    assert journal.close()
    assert receiver.taken == ["start", *range(250), "tags", "tags", 250]
    assert receiver.group_sizes == [1, 100, 100, 50, 1, 1, 1]


@pytest.mark.parametrize("seed", range(3))
def test_a_receiver_that_fails_before_or_after_taking_gets_everything_in_order(seed: int, tmp_path: Path) -> None:
    dice, receiver = random.Random(seed), Receiver()

    def send(entries: list[Entry]) -> None:
        if dice.random() < 0.3:
            raise ConnectionError("refused")
        receiver(entries)
        if dice.random() < 0.2:
            raise TimeoutError("the answer was lost")

    journal = opened(tmp_path, send)
    for step in range(40):
        if step % 10 == 9:
            journal.append("", f"kind{step}", {})
        log(journal, step)
        time.sleep(0.01)
    assert journal.close()
    expected = [item for step in range(40) for item in ([f"kind{step}", step] if step % 10 == 9 else [step])]
    assert list(dict.fromkeys(receiver.taken)) == expected
    assert not journal.waiting


def test_half_a_line_is_cut_off_and_garbage_passed_over(tmp_path: Path) -> None:
    journal = opened(tmp_path, absent)
    log(journal, 1)
    log(journal, 2)
    assert not journal.close(timeout=0.2)
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    first, second = whole.splitlines(keepends=True)
    path.write_bytes(first + b"\0\0\0\n" + b"0\n" + second + second[: len(second) // 2])
    receiver = Receiver()
    resumed = opened(tmp_path, receiver)
    assert [log(resumed, step) for step in (2, 3)] == [False, True]
    assert resumed.close()
    assert receiver.taken == [1, 2, 3]


def test_a_lost_position_only_repeats(tmp_path: Path) -> None:
    receiver = Receiver()
    journal = opened(tmp_path, receiver)
    log(journal, 1)
    assert journal.close()
    (tmp_path / "position.json").write_text("")
    assert replay(tmp_path, receiver) == 1
    assert replay(tmp_path, receiver) == 0
    assert receiver.taken == [1, 1]


KILLED = """
import sys, time, random
from pathlib import Path
from components.journal import Journal

folder, taken, total, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
dice = random.Random(seed)

def send(entries):
    if dice.random() < 0.05:
        raise ConnectionError
    with open(taken, "a") as file:
        file.write("".join(f"{entry.payload['step']}\\n" for entry in entries))

progress = folder / "step"
start = max(0, int(progress.read_text() or 0) - 30) if progress.exists() else 0
journal = Journal(folder, send, linger=0.001)
print("ready", flush=True)
for step in range(start, total):
    files = (lambda files: (files / "picture").write_bytes(b"x" * 5000)) if step % 7 == 0 else None
    journal.append(f"{'image' if files else 'metrics'}:{step}", "image" if files else "metrics", {"step": step}, files)
    progress.write_text(str(step))
    time.sleep(0.002)
print("drained" if journal.close() else "left", flush=True)
"""


def test_killed_at_any_moment_and_resumed_with_steps_that_overlap(tmp_path: Path) -> None:
    """The receiver may get again what it took just before a kill; it never misses, mixes or repeats otherwise."""
    dice, total = random.Random(0), 500
    taken = tmp_path / "taken"
    for attempt in range(40):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(taken), str(total), str(attempt)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            child.wait(dice.uniform(0.02, 0.4))
            break
        except subprocess.TimeoutExpired:
            if attempt < 12:
                child.send_signal(signal.SIGKILL)
            elif child.wait(60) == 0:
                break
        child.wait()
    assert child.stdout is not None
    assert child.stdout.read().endswith("drained\n")
    assert attempt >= 3
    lines = [int(line) for line in taken.read_text().splitlines()]
    assert list(dict.fromkeys(lines)) == list(range(total))
    back = [earlier - later for earlier, later in itertools.pairwise(lines) if later <= earlier]
    assert len(back) <= attempt
    assert all(gap < 100 for gap in back)


def test_closing_gives_up_on_one_who_refuses_connections(tmp_path: Path) -> None:
    journal = opened(tmp_path, absent)
    for step in range(5):
        log(journal, step)
    started = time.monotonic()
    assert not journal.close(timeout=60, patience=1)
    assert time.monotonic() - started < 20
    assert journal.waiting == 5
    receiver = Receiver()
    assert replay(tmp_path, receiver, patience=20) == 5
    assert receiver.taken == [0, 1, 2, 3, 4]


def test_closing_gives_up_on_one_who_hangs(tmp_path: Path) -> None:
    gate, receiver = threading.Event(), Receiver()

    def hang(entries: list[Entry]) -> None:
        gate.wait()
        raise TimeoutError

    journal = opened(tmp_path, hang)
    for step in range(5):
        assert log(journal, step)
    started = time.monotonic()
    assert not journal.close(timeout=60, patience=1)
    assert time.monotonic() - started < 20
    with pytest.raises(JournalBusy):
        replay(tmp_path, receiver)
    gate.set()
    assert replay(tmp_path, receiver, patience=20) == 5
    assert receiver.taken == [0, 1, 2, 3, 4]


def test_an_upload_that_takes_long_is_waited_for(tmp_path: Path) -> None:
    receiver = Receiver()

    def slow(entries: list[Entry]) -> None:
        time.sleep(1.5)
        receiver(entries)

    journal = opened(tmp_path, slow)
    journal.append("", "files", {}, lambda files: (files / "model").write_text("x"))
    assert journal.close(timeout=60, patience=0.3)
    assert receiver.taken == ["files"]


def test_what_is_refused_is_left_out_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    receiver = Receiver()

    def send(entries: list[Entry]) -> None:
        if any(entry.payload["step"] in (3, 5) for entry in entries):
            raise Refused("no number")
        receiver(entries)

    journal = opened(tmp_path, send)
    for step in range(8):
        log(journal, step)
    assert journal.close()
    assert receiver.taken == [0, 1, 2, 4, 6, 7]
    assert capsys.readouterr().out.count("refused") == 1


def test_an_outage_is_told_once_and_its_end_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failures, receiver = iter(range(3)), Receiver()

    def send(entries: list[Entry]) -> None:
        if next(failures, None) is not None:
            raise ConnectionError("nobody listens")
        receiver(entries)

    journal = Journal(tmp_path, send, receiver="MLflow", linger=0.01)
    log(journal, 1)
    assert journal.close()
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert told[0].startswith("MLflow does not take the log (nobody listens); training goes on")
    assert told[1].startswith("MLflow answers again")


def test_two_cannot_write_and_nobody_delivers_for_one_who_lives(tmp_path: Path) -> None:
    receiver = Receiver()
    journal = opened(tmp_path, receiver)
    log(journal, 1)
    with pytest.raises(JournalBusy, match="another process writes"):
        opened(tmp_path, receiver)
    with pytest.raises(JournalBusy, match="another process writes"):
        replay(tmp_path, receiver)
    remove(tmp_path)
    assert journal.close()
    newest = last_entry(tmp_path)
    assert newest is not None and newest.payload == {"step": 1}
    remove(tmp_path)
    assert not tmp_path.exists()


def test_a_training_starts_while_another_process_still_delivers_its_journal(tmp_path: Path) -> None:
    journal = opened(tmp_path, absent)
    log(journal, 1)
    assert not journal.close(timeout=0.2)
    entered, gate, slow, quick = threading.Event(), threading.Event(), Receiver(), Receiver()

    def send(entries: list[Entry]) -> None:
        entered.set()
        gate.wait()
        slow(entries)

    other = threading.Thread(target=lambda: replay(tmp_path, send, patience=20))
    other.start()
    assert entered.wait(20)
    with pytest.raises(JournalBusy, match="another process delivers"):
        replay(tmp_path, quick)
    resumed = opened(tmp_path, quick)
    log(resumed, 2)
    gate.set()
    other.join()
    assert resumed.close()
    assert (slow.taken, quick.taken) == ([1], [2])


def test_memory_holds_ids_alone(tmp_path: Path) -> None:
    """20 MB wait on disk; while they are appended and while they are delivered, memory grows by a tenth of that."""
    gate, count = threading.Event(), 0

    def send(entries: list[Entry]) -> None:
        nonlocal count
        gate.wait()
        count += len(entries)

    journal = opened(tmp_path, send)
    tracemalloc.start()
    try:
        for step in range(10_000):
            journal.append(f"metrics:{step}", "metrics", {"step": step, "text": "x" * 2000})
        gate.set()
        assert journal.close()
        assert tracemalloc.get_traced_memory()[1] < 2_500_000
    finally:
        tracemalloc.stop()
    assert count == 10_000
    assert (tmp_path / "journal.jsonl").stat().st_size > 20_000_000


FULL = """
import resource, sys
from pathlib import Path
from components.journal import Journal

folder, taken = Path(sys.argv[1]), []
journal = Journal(folder, lambda entries: taken.extend(entry.payload["step"] for entry in entries), linger=0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))  # no file grows beyond that
written = [journal.append(f"metrics:{step}", "metrics", {"step": step}) for step in range(200)]
assert not journal.append("", "image", {}, lambda files: (files / "picture").write_bytes(b"x" * 9000))
assert not any((folder / "files").iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert journal.append("metrics:200", "metrics", {"step": 200})
assert journal.append("metrics:199", "metrics", {"step": 199})  # what was lost is no duplicate
assert journal.close()
assert 10 < sum(written) < 200 and written == sorted(written, reverse=True), written
assert taken == [*range(sum(written)), 200, 199], taken
"""


def test_a_full_disk_costs_entries_and_no_error(tmp_path: Path) -> None:
    """A limit on the size of files makes the kernel cut a write in two, as a full disk does."""
    result = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("cannot be written") == 1
