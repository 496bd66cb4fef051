"""Processes that register, promote and roll back at once, killed at random moments: the registry stays whole."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from components.config import Settings
from tests.test_ledger import registered

SECONDS = 20
CHAOS = """
import json, os, random, sys, time
from pathlib import Path
from components.config import Settings
from components.tracking import Registry, RegistryError
from tests.registered import servable

settings, until = Settings(home=Path(sys.argv[1]), MLFLOW_TRACKING_URI=""), time.monotonic() + float(sys.argv[2])
run_id, log, bento = Registry(settings, "mender").get("1").run_id, Path(sys.argv[3]), sys.argv[4]


def work(seed):
    registry, chance = Registry(settings, "mender"), random.Random(seed)
    while True:
        history = registry.history()
        champion = history[-1].version
        try:
            match chance.randrange(4):
                case 0:
                    tags = {"digest": f"new{chance.randrange(8)}", "files": bento} | servable(champion)
                    registry.register(run_id, tags)
                case 1 | 2:
                    number = chance.choice(registry.versions()).number
                    registry.tag(number, servable(champion))
                    registry.promote(number)
                case 3:
                    registry.rollback(chance.choice(history).version, champion)
            said = "done"
        except RegistryError:
            said = "refused"
        except Exception as error:
            said = repr(error)[:300]
        with log.open("a") as file:
            file.write(said + "\\n")


chance, children, kills = random.Random(0), [], 0
while time.monotonic() < until or children:
    while len(children) < 4 and time.monotonic() < until:
        child = os.fork()
        if not child:
            work(os.getpid())
        children.append(child)
    time.sleep(chance.uniform(0.1, 1))
    killed = children.pop(chance.randrange(len(children)))
    os.kill(killed, 9)
    os.waitpid(killed, 0)
    kills += 1
print(json.dumps(kills))
"""


@pytest.mark.slow
def test_the_registry_stays_whole_whoever_is_killed_when(settings: Settings) -> None:
    registry, log = registered(settings), settings.home / "log"
    files = registry.get("1").tags["files"]
    command = [sys.executable, "-c", CHAOS, str(settings.home), str(SECONDS), str(log), files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = Counter(log.read_text().splitlines())
    assert set(said) <= {"done", "refused"} and said["done"] > 5, said
    assert json.loads(done.stdout) > 10
    registry.settle()
    history = registry.history()
    assert len(history) > 2 and history[0].replaced == ""
    assert [entry.replaced for entry in history[1:]] == [entry.version for entry in history[:-1]]
    aliases = registry.aliases()
    assert (aliases["champion"], aliases["previous"]) == (history[-1].version, history[-1].replaced)
    promoted = {(entry.version, entry.replaced) for entry in history if entry.action == "promote"}
    assert len(promoted) == sum(entry.action == "promote" for entry in history)
    for digest in {version.tags["digest"] for version in registry.versions()}:
        registry.register(registry.get("1").run_id, {"digest": digest})  # completes one that was cut short
    digests = Counter(version.tags["digest"] for version in registry.versions())
    assert set(digests.values()) == {1}, digests
