"""Registrations and promotions at the same moment, and ones that die half-way."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from components.bentos import free_port
from components.config import RunConfig, ServeConfig, Settings, TrainConfig
from components.inpainting.scores import Decision
from components.manifest import Manifest
from components.promote import promote
from components.tracking import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    HistoryError,
    Registry,
    RegistryError,
    start_run,
)
from pipelines.listing import history_table, version_table
from tests.conftest import Kintsugi
from tests.mlflow_server import serving
from tests.registered import pack, servable

PROCESSES = 16
DATASET = Manifest(kind="dataset", digest="d" * 64, code_version="", facts={"source": "sample"})
STORES = ["sqlite", "postgres", "server"]


@pytest.fixture
def postgres() -> Iterator[str]:
    """A PostgreSQL server of the test's own, as an MLflow tracking URI."""
    binaries = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if not binaries:
        pytest.skip("no PostgreSQL here; apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="kintsugi-postgres-") as name:
        folder, port, as_user = Path(name), free_port(), []
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres")
            as_user = ["runuser", "-u", "postgres", "--"]

        def call(program: str, *arguments: str) -> None:
            command = [*as_user, str(binaries[-1] / program), "-D", str(folder / "data"), *arguments]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        call("initdb", "-U", "postgres", "-A", "trust", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        call("pg_ctl", "-w", "-o", options, "-l", str(folder / "log"), "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture
def server(postgres: str, tmp_path: Path) -> Iterator[str]:
    """MLflow's server with two processes in front of PostgreSQL, as an installation has it."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", postgres, "--port", url.split(":")[-1],
               "--workers", "2", "--artifacts-destination", str(tmp_path / "artifacts")]  # fmt: skip
    with serving(command, url, tmp_path / "log"):
        yield url


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of an empty store: a sqlite file, a PostgreSQL database, or a server in front of one."""
    monkeypatch.chdir(tmp_path)  # where MLflow keeps artifacts beside a database server
    uri = "" if request.param == "sqlite" else request.getfixturevalue(request.param)
    return Settings(home=tmp_path / "state", MLFLOW_TRACKING_URI=uri)


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return registered(settings)


def registered(settings: Settings) -> Registry:
    """A registered model of three versions, the first of them champion."""
    with start_run(settings, RunConfig(), TrainConfig(), DATASET) as run:
        pass
    registry = Registry(settings, "mender")
    for digest in "abc":
        registry.register(run.id, {"digest": digest} | servable("" if digest == "a" else "1"))
    pack(settings, registry, "1", "2", "3")
    registry.promote("1")
    return registry


REFUSED = Decision(admitted=False, rules=[], champion="1").model_dump_json()


@pytest.mark.parametrize(
    ("tags", "complaint"),
    [
        ({"decision": ""}, "was not admitted by the gate"),
        ({"decision": REFUSED}, "was not admitted by the gate"),
        ({"bento": ""}, "was never packaged"),
        ({"verified": ""}, "was not verified since it was packaged"),
        ({"verified": "", "failed": "kintsugi:0"}, "was not verified since it was packaged"),
        ({"verified": "", "failed": "kintsugi:1"}, "did not repair alike when it was served"),
    ],
)
def test_nothing_is_promoted_or_served_that_was_not_admitted_and_verified(
    registry: Registry, tags: dict[str, str], complaint: str
) -> None:
    registry.tag("3", tags)
    for promotion in (registry.challenger, lambda: registry.promote("3")):
        with pytest.raises(RegistryError, match=f"version 3 of 'mender' {complaint}, so it does not become champion"):
            promotion()
    registry.tag("3", servable("1"))
    assert {registry.challenger().number, registry.challenger("3").number} == {"3"}
    registry.promote("3")
    served = registry.servable_champion()
    assert served and served.number == "3"
    registry.tag("3", tags)
    with pytest.raises(RegistryError, match=f"version 3 of 'mender', the champion, {complaint}"):
        registry.servable_champion()


PROMOTE = """
import os, sys, time
from pathlib import Path
from components.config import Settings
from components.tracking import Registry, RegistryError

settings, processes = Settings(home=Path(sys.argv[1]), MLFLOW_TRACKING_URI=sys.argv[3]), int(sys.argv[2])
at = time.monotonic() + 2
children = []
for version in range(2, processes + 2):
    if not os.fork():
        registry = Registry(settings, "mender")
        time.sleep(max(0, at - time.monotonic()))
        try:
            registry.promote(str(version))
            said = "won"
        except RegistryError as error:
            said = str(error)
        os.write(1, f"{version} {said}\\n".encode())
        os._exit(0)
for _ in range(processes):
    assert os.wait()[1] == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES, indirect=True)
def test_of_many_that_promote_at_once_one_wins_and_the_others_are_told(store: Settings) -> None:
    registry = registered(store)
    for number in range(PROCESSES - 2):
        registry.register(
            registry.get("1").run_id, {"digest": str(number), "files": registry.get("1").tags["files"]} | servable("1")
        )
    command = [sys.executable, "-c", PROMOTE, str(store.home), str(PROCESSES), store.tracking_uri]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert len(said) == PROCESSES, done.stdout
    winners = [version for version, word in said.items() if word == "won"]
    assert len(winners) == 1, said
    conflict = f"was compared with version 1, but by now version {winners[0]} is champion; run the pipeline again"
    assert all(conflict in word for version, word in said.items() if version not in winners), said
    assert [(entry.version, entry.replaced) for entry in registry.history()] == [("1", ""), (winners[0], "1")]
    assert {alias: n for alias, n in registry.aliases().items() if alias != "challenger"} == {
        CHAMPION: winners[0],
        PREVIOUS: "1",
    }


REGISTER = """
import os, sys, time
from pathlib import Path
from components.config import Settings
from components.tracking import Registry

settings, processes = Settings(home=Path(sys.argv[1]), MLFLOW_TRACKING_URI=sys.argv[3]), int(sys.argv[2])
at = time.monotonic() + 2
for process in range(processes):
    if not os.fork():
        registry = Registry(settings, "mender")
        time.sleep(max(0, at - time.monotonic()))
        version = registry.register(sys.argv[4], {"digest": "same"}, "the same")
        os.write(1, f"{version.number}\\n".encode())
        os._exit(0)
for _ in range(processes):
    assert os.wait()[1] == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES, indirect=True)
def test_pods_of_one_step_that_register_at_once_make_one_version(store: Settings) -> None:
    registry = registered(store)
    run_id = registry.get("1").run_id
    command = [sys.executable, "-c", REGISTER, str(store.home), str(PROCESSES // 2), store.tracking_uri, run_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    assert len(said) == PROCESSES // 2
    (number,) = set(said)
    equal = [version for version in registry.versions() if version.tags["digest"] == "same"]
    assert [version.number for version in equal] == [number]
    assert len(registry.versions()) == 4
    assert registry.aliases()[CHALLENGER] == number


class Crash(BaseException):
    """The process dies here."""


def survives(call: Callable[[], object], writes: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a call is done before it dies, which it does when it has written to MLflow so many times."""
    done = 0

    def dying(name: str) -> None:
        write = getattr(MlflowClient, name)

        def wrapped(*arguments: object, **options: object) -> object:
            nonlocal done
            if done == writes:
                raise Crash
            done += 1
            return write(*arguments, **options)

        monkeypatch.setattr(MlflowClient, name, wrapped)

    for name in ("create_registered_model", "create_model_version", "delete_model_version", "update_model_version",
                 "set_model_version_tag", "set_registered_model_alias", "delete_registered_model_alias",
                 "set_registered_model_tag"):  # fmt: skip
        dying(name)
    try:
        call()
        return True
    except Crash:
        return False
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize("writes", range(7))
def test_a_registration_that_dies_between_two_writes_is_completed_by_the_next_call(
    writes: int, registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, tags = registry.get("1").run_id, {"digest": "new", "code": "1"}
    twin = MlflowClient(settings.mlflow_uri)
    source = str(twin.get_model_version("mender", "1").source)
    for _ in range(2):  # of an earlier try, which died before it removed the second
        twin.create_model_version("mender", source, run_id, tags={"digest": "new"})
    completed = survives(lambda: registry.register(run_id, tags, "why"), writes, monkeypatch)
    assert completed == (writes >= 5)  # twin removed, two tags, description, alias
    version = registry.register(run_id, tags, "why")
    assert (version.number, version.tags) == ("4", tags)
    assert [found.number for found in registry.versions()] == ["4", "3", "2", "1"]
    assert registry.aliases()[CHALLENGER] == "4"
    assert twin.get_model_version("mender", "4").description == "why"


def test_a_champion_that_is_registered_again_stays_what_it_is(registry: Registry) -> None:
    one = registry.get("1")
    again = registry.register(one.run_id, {"digest": "a", "code": "2"})
    assert (again.number, again.tags["code"]) == ("1", "2")
    assert registry.aliases() == {CHAMPION: "1", CHALLENGER: "3"}


def test_the_step_refuses_where_the_champion_changed_since_the_gate_compared(
    registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    serve, report = ServeConfig(model_name="mender"), tmp_path / "report.html"
    registry.promote("2")
    conflict = "version 3 was compared with version 1, but by now version 2 is champion"
    with pytest.raises(RegistryError, match=conflict):
        promote(serve, "3", report, settings)
    assert f"Not promoted: {conflict}" in report.read_text() and ledger(report)[0][1] == "2 in place of 1"
    assert registry.aliases()[CHAMPION] == "2"
    registry.rollback("1", "2", "it blurs")  # and back to the one that it was compared with
    for _ in range(2):  # as a retried step does
        assert promote(serve, "3", report, settings) == "3"
        page = report.read_text()
        assert "Version 3 is champion, in place of version 1." in page and "Not promoted" not in page
        rows = ledger(report)
        assert [row[1] for row in rows] == ["3 in place of 1", "1 in place of 2", "2 in place of 1", "1"]
        assert rows[1][2].startswith("rollback by ") and rows[1][2].endswith(": it blurs")
        assert dict(re.findall(r'<tr><th class="text">(\w+)</th><td class="text">version (\d)', page)) == {
            CHAMPION: "3",
            PREVIOUS: "1",
        }
    assert [(entry.version, entry.replaced) for entry in registry.history()][-1] == ("3", "1")
    assert registry.history()[-1].run == registry.get("3").run_id


def test_the_step_leaves_it_to_a_person_and_says_what_command_finishes_it(
    registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    registry.tag("3", {"decision": Decision(admitted=True, rules=[], mode="manual").model_dump_json()})
    report = tmp_path / "report.html"
    assert promote(ServeConfig(model_name="mender"), "3", report, settings) == ""
    page = report.read_text()
    assert "Version 3 is verified and waits to be promoted; version 1 is champion." in page
    assert "<code>kintsugi promote 3 --model-name mender</code>" in page
    assert registry.aliases() == {CHAMPION: "1", CHALLENGER: "3"}


def ledger(report: Path) -> list[tuple[str, ...]]:
    """The rows of a page's ledger: when, the champion, how and why."""
    rows = re.findall(r"<tr><td>(\d{4}-.*?)</tr>", report.read_text())
    return [tuple(re.findall(r"([^<>]*)</td>", row)) for row in rows]


@pytest.mark.parametrize("writes", range(13))
def test_a_promotion_that_dies_between_two_writes_is_completed_by_the_next_call(
    writes: int, registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed = survives(lambda: registry.promote("2"), writes, monkeypatch)
    before = [entry.version for entry in registry.history()]
    assert before in (["1"], ["1", "2"])
    if before == ["1", "2"]:  # it is decided, so whoever comes next completes it, and whoever is late is told
        with pytest.raises(RegistryError, match="by now version 2 is champion"):
            registry.promote("3")
    else:
        assert not completed
        registry.promote("2")
    aliases = registry.aliases()
    assert (aliases[CHAMPION], aliases[PREVIOUS]) == ("2", "1")
    tags = registry.get("2").tags
    assert tags["replaced"] == "1" and tags["promoted_at"] and tags["promoted_by"]
    said = MlflowClient(settings.mlflow_uri).get_registered_model("mender").tags["champion"]
    assert said.startswith(f"version 2 in place of version 1 since {tags['promoted_at']}, promote by ")
    registry.promote("2")  # the retried step
    assert [entry.version for entry in registry.history()] == ["1", "2"]


def test_the_history_shows_which_run_a_champion_is_from(registry: Registry) -> None:
    table = history_table(registry.history())
    shown = {str(column.header): list(column.cells) for column in table.columns}
    assert shown["champion"] == ["1"]
    assert shown["run"] == [registry.get("1").run_id[:8]]


def test_versions_are_listed_with_their_scores_and_aliases(registry: Registry) -> None:
    registry.tag("2", {"scores": json.dumps({"ssim": 0.91234, "psnr": 27.1, "hole_mse": 0.012}), "steps": "1000"})
    table = version_table(registry)
    shown = {str(column.header): list(column.cells) for column in table.columns}
    assert shown["version"] == ["3", "2", "1"]
    assert shown["alias"] == [CHALLENGER, "", CHAMPION]
    assert (shown["SSIM"], shown["hole MSE"]) == (["", "0.9123", ""], ["", "0.01200", ""])  # the others were not scored
    assert shown["promoted"][2] == registry.history()[0].at[:16].replace("T", " ")


def test_going_back_asks_first_and_records_why(registry: Registry, settings: Settings, kintsugi: Kintsugi) -> None:
    registry.promote("2")
    back = ("rollback", "--model-name", "mender")
    asked = kintsugi(*back, home=settings.home)  # nobody answers
    assert asked.returncode == 1
    assert "Make version 1 champion in place of version 2?" in asked.stdout + asked.stderr
    assert registry.aliases()[CHAMPION] == "2"
    done = kintsugi(*back, "--yes", "--why", "faces were blurred", home=settings.home)
    assert done.returncode == 0, done.stderr
    latest = registry.history()[-1]
    assert (latest.action, latest.version, latest.replaced) == ("rollback", "1", "2")
    assert latest.why == "faces were blurred"


def test_promotions_by_hand_keep_the_reason_that_was_given(
    registry: Registry, settings: Settings, kintsugi: Kintsugi
) -> None:
    by_hand = ("promote", "--yes", "--model-name", "mender")
    assert kintsugi(*by_hand, "2", "--why", "looked at it", home=settings.home).returncode == 0
    registry.tag("3", servable("2"))
    assert kintsugi(*by_hand, home=settings.home).returncode == 0
    reasons = [entry.why for entry in registry.history()]
    assert reasons == ["", "looked at it", f"by hand: {registry.get('3').decision.verdict}"]
    none = kintsugi(*by_hand, home=settings.home)
    assert none.returncode == 2 and "has no challenger to promote" in none.stderr


def test_a_moved_alias_is_reported_and_put_right_before_anything_else(
    registry: Registry, settings: Settings, kintsugi: Kintsugi
) -> None:
    """As after a rollback that was interrupted: repeated, it would go back to the version that was bad."""
    registry.promote("2")
    listed = kintsugi("models", "--model-name", "mender", home=settings.home)
    assert "MLflow's alias" not in listed.stdout
    MlflowClient(settings.mlflow_uri).set_registered_model_alias("mender", CHAMPION, "1")
    listed = kintsugi("models", "--model-name", "mender", home=settings.home)
    assert "MLflow's alias champion points at 1, but the champion is version 2" in listed.stdout
    back = ("rollback", "--yes", "--model-name", "mender")
    done = kintsugi(*back, home=settings.home)
    assert done.returncode == 2 and "now they do: version 2 is champion" in done.stderr
    assert (registry.aliases()[CHAMPION], len(registry.history())) == ("2", 2)
    assert kintsugi(*back, home=settings.home).returncode == 0
    assert registry.aliases()[CHAMPION] == "1"


def test_what_is_registered_while_another_is_promoted_stays_challenger(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(registry.get("1").run_id, {"digest": "b"} | servable("1"))  # again, so that 2 is challenger
    delete = MlflowClient.delete_registered_model_alias

    def late(self: MlflowClient, name: str, alias: str) -> None:
        registry.register(registry.get("1").run_id, {"digest": "d"} | servable("2"))
        delete(self, name, alias)

    monkeypatch.setattr(MlflowClient, "delete_registered_model_alias", late)
    registry.promote("2")
    assert registry.aliases() == {CHAMPION: "2", PREVIOUS: "1", CHALLENGER: "4"}


def test_what_was_rolled_back_is_not_promoted_again_by_a_retried_step(registry: Registry) -> None:
    registry.promote("2")
    registry.rollback("1", "2", "it blurs")
    with pytest.raises(
        RegistryError, match=r"was champion already, and was replaced \(it blurs\); 'kintsugi rollback 2'"
    ):
        registry.promote("2")
    registry.rollback("2", "1")
    registry.promote("2")
    assert [entry.version for entry in registry.history()] == ["1", "2", "1", "2"]


def test_whoever_reads_while_another_promotes_misses_nothing(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, other = MlflowClient.search_model_versions, Registry(settings, "mender")

    def slow(self: MlflowClient, *arguments: object, **options: object) -> object:
        found = search(self, *arguments, **options)  # type: ignore[arg-type]
        monkeypatch.setattr(MlflowClient, "search_model_versions", search)
        other.promote("2")
        return found

    monkeypatch.setattr(MlflowClient, "search_model_versions", slow)
    assert [entry.version for entry in registry.history()] == ["1"]
    assert [entry.version for entry in registry.history()] == ["1", "2"]


def test_what_was_rolled_back_before_its_promotion_was_complete_stays_back(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not survives(lambda: registry.promote("2"), 2, monkeypatch)  # it is in the ledger, and nowhere else
    assert [entry.version for entry in registry.history()] == ["1", "2"]
    assert "promoted_at" not in registry.get("2").tags
    Registry(settings, "mender").rollback("1", "2")
    with pytest.raises(RegistryError, match="version 2 of 'mender' was champion already"):
        registry.promote("2")


def test_what_is_written_late_does_not_undo_a_rollback(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first try is under way, a second one succeeds, somebody goes back, and then the first one arrives."""
    create = MlflowClient.create_model_version

    def late(self: MlflowClient, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(MlflowClient, "create_model_version", create)
        registry.promote("2")
        registry.rollback("1", "2", "it blurs")
        return create(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(MlflowClient, "create_model_version", late)
    with pytest.raises(RegistryError, match="version 2 was compared with version 1, but by now version 1 is champion"):
        registry.promote("2")
    assert [entry.version for entry in registry.history()] == ["1", "2", "1"]


def test_entries_of_the_first_kintsugi_count_by_whom_they_replace(registry: Registry, settings: Settings) -> None:
    registry.promote("2")
    client = MlflowClient(settings.mlflow_uri)
    for number in ("1", "2"):
        client.delete_model_version_tag("mender.ledger", number, "after")
    assert [entry.version for entry in registry.history()] == ["1", "2"]
    registry.tag("3", servable("2"))
    registry.promote("3")
    assert [entry.version for entry in registry.history()] == ["1", "2", "3"]


def test_an_entry_that_a_late_answer_wrote_twice_counts_once(registry: Registry, settings: Settings) -> None:
    registry.promote("2")
    client = MlflowClient(settings.mlflow_uri)
    written = client.get_model_version("mender.ledger", "2")
    registry.rollback("1", "2")
    client.create_model_version("mender.ledger", str(written.source), tags=written.tags)
    assert [entry.version for entry in registry.history()] == ["1", "2", "1"]


@pytest.mark.parametrize("lost", [("1",), ("2",), ("3",), ("1", "2", "3"), ()])
def test_a_damaged_history_promotes_nobody_until_a_person_says_who_is_champion(
    lost: tuple[str, ...], registry: Registry, settings: Settings, kintsugi: Kintsugi, tmp_path: Path
) -> None:
    """Without the entry that is lost another version, or none, would be champion; ``()``: without the whole model."""
    registry.promote("2")
    registry.tag("3", servable("2"))
    registry.promote("3")
    fourth = registry.register(registry.get("1").run_id, {"digest": "d"} | servable()).number
    client = MlflowClient(settings.mlflow_uri)
    for number in lost:
        client.delete_model_version("mender.ledger", number)
    if not lost:
        client.delete_registered_model("mender.ledger")
    report = tmp_path / "report.html"
    for call in (registry.champion, registry.settle, lambda: registry.promote(fourth),
                 lambda: promote(ServeConfig(model_name="mender"), fourth, report, settings)):  # fmt: skip
        with pytest.raises(HistoryError, match=r"entries of the history of 'mender' .* were deleted"):
            call()
    assert "Not promoted: entries of the history" in report.read_text()
    back = ("rollback", "--yes", "--model-name", "mender", "--why", "somebody tidied up")
    assert "'kintsugi rollback VERSION --model-name mender' says so" in kintsugi(*back, home=settings.home).stderr
    unpacked = kintsugi(*back, fourth, home=settings.home)
    assert unpacked.returncode == 2 and "version 4 of 'mender' has no digest of its bento/1" in unpacked.stderr
    pack(settings, registry, fourth)
    done = kintsugi(*back, "2", home=settings.home)
    assert done.returncode == 0, done.stderr
    assert (registry.history()[-1].action, registry.history()[-1].why) == ("restore", "somebody tidied up")
    assert registry.aliases()[CHAMPION] == "2"
    with pytest.raises(RegistryError, match="the history of 'mender' is whole"):
        registry.restore("1", "too late")
    with pytest.raises(RegistryError, match="version 3 of 'mender' was champion already"):
        registry.promote("3")
    registry.tag(fourth, servable("2"))
    registry.promote(fourth)
    assert registry.history()[-1].version == fourth
    for damage in ("its last entry", "all of it"):
        if damage == "all of it":
            client.delete_registered_model("mender.ledger")
        else:
            restored = [v for v in entries(client) if v.tags["action"] == "restore"]
            client.delete_model_version("mender.ledger", restored[-1].version)
        with pytest.raises(HistoryError):
            registry.champion()
        registry.restore("3", "again")
        champion = registry.champion()
        assert champion and champion.number == "3" and registry.history()[-1].why == "again"
    registry.rollback("1", "3")  # it was champion, though no entry says so any more
    assert [entry.version for entry in registry.history()] == ["3", "1"]


def entries(client: MlflowClient) -> list[ModelVersion]:
    """The ledger's entries, oldest first."""
    return sorted(client.search_model_versions("name = 'mender.ledger'"), key=lambda version: int(version.version))


def test_of_two_who_say_who_is_champion_the_first_counts(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote("2")
    client, create = MlflowClient(settings.mlflow_uri), MlflowClient.create_model_version
    client.delete_model_version("mender.ledger", "1")

    def late(self: MlflowClient, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(MlflowClient, "create_model_version", create)
        registry.restore("2")
        return create(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(MlflowClient, "create_model_version", late)
    with pytest.raises(RegistryError, match="somebody was faster: by now version 2 is champion"):
        registry.restore("1")
    assert [entry.version for entry in registry.history()] == ["2"]


@pytest.mark.parametrize("tag", ["nonsense", "x:y", "other:1"])
def test_a_tag_that_somebody_changed_is_damage_that_can_be_mended(
    tag: str, registry: Registry, settings: Settings
) -> None:
    MlflowClient(settings.mlflow_uri).set_registered_model_tag("mender", "ledger", tag)
    with pytest.raises(HistoryError):
        registry.champion()
    registry.restore("2")
    assert [entry.version for entry in registry.history()] == ["1", "2"]


def test_who_deletes_the_champion_has_none_until_another_takes_its_place(
    registry: Registry, settings: Settings, kintsugi: Kintsugi
) -> None:
    registry.promote("2")
    MlflowClient(settings.mlflow_uri).delete_model_version("mender", "2")
    assert registry.champion() is None
    with pytest.raises(RegistryError, match=GONE):
        registry.servable_champion()
    listed = kintsugi("models", "--model-name", "mender", home=settings.home)
    assert "version 2 of 'mender', the champion, was deleted" in listed.stdout
    done = kintsugi("rollback", "--yes", "--model-name", "mender", home=settings.home)
    assert done.returncode == 0, done.stderr
    assert registry.aliases() == {CHAMPION: "1", CHALLENGER: "3"}
    registry.promote("3")
    assert registry.aliases() == {CHAMPION: "3", PREVIOUS: "1"}


def test_the_first_champion_may_be_deleted_too(registry: Registry, settings: Settings, kintsugi: Kintsugi) -> None:
    MlflowClient(settings.mlflow_uri).delete_model_version("mender", "1")
    with pytest.raises(RegistryError, match="version 3 was compared with version 1, but by now no model is champion"):
        registry.promote("3")
    registry.tag("3", servable())
    by_hand = kintsugi("promote", "--yes", "--model-name", "mender", home=settings.home)
    assert by_hand.returncode == 0, by_hand.stderr
    assert registry.aliases() == {CHAMPION: "3"}
    assert [(entry.version, entry.replaced) for entry in registry.history()] == [("1", ""), ("3", "")]


GONE = "version . of 'mender', the champion, was deleted, or the model was renamed; 'kintsugi rollback VERSION"


def test_a_version_is_not_champion_for_having_the_number_of_one(registry: Registry, settings: Settings) -> None:
    """As where a registered model was deleted, and versions are numbered anew."""
    client = MlflowClient(settings.mlflow_uri)
    client.delete_registered_model("mender")
    assert not registry.settle()
    with start_run(settings, RunConfig(), TrainConfig(), DATASET) as run:
        pass
    assert registry.register(run.id, {"digest": "x"} | servable("1")).number == "1"
    assert registry.champion() is None and registry.aliases() == {CHALLENGER: "1"}
    with pytest.raises(RegistryError, match=GONE):
        registry.servable_champion()
    registry.settle()
    assert registry.aliases() == {CHALLENGER: "1"} and "promoted_at" not in registry.get("1").tags
    pack(settings, registry, "1")
    with pytest.raises(RegistryError, match="version 1 was compared with version 1, but by now no model is champion"):
        registry.promote("1")
    registry.tag("1", servable())
    registry.promote("1")
    champion = registry.champion()
    assert champion and champion.run_id == run.id


def test_the_previous_champion_may_be_deleted(registry: Registry, settings: Settings) -> None:
    registry.promote("2")
    registry.tag("3", servable("2"))
    registry.promote("3")
    MlflowClient(settings.mlflow_uri).delete_model_version("mender", "2")
    registry.settle()
    assert registry.aliases() == {CHAMPION: "3"}
    champion = registry.champion()
    assert champion and champion.number == "3"
    with pytest.raises(RegistryError, match="has no version 2; it has 3, 1"):
        registry.rollback("2", "3")
    registry.rollback("1", "3")
    assert registry.aliases()[CHAMPION] == "1"


def test_nobody_goes_back_to_what_cannot_be_served(registry: Registry, settings: Settings) -> None:
    registry.promote("2")
    artifacts = str(MlflowClient(settings.mlflow_uri).get_run(registry.get("1").run_id).info.artifact_uri)
    archive = Path(artifacts.removeprefix("file://")) / "bento" / "1" / "kintsugi.bento"
    archive.write_bytes(b"another")
    with pytest.raises(RegistryError, match=r"version 1 of 'mender' is refused: its bento/1/kintsugi.bento"):
        registry.rollback("1", "2")
    archive.unlink()
    with pytest.raises(RegistryError, match=r"version 1 of 'mender' (has lost its bento/1|is refused: its bento/1)"):
        registry.rollback("1", "2")
    registry.tag("1", {"verified": ""})
    with pytest.raises(RegistryError, match="was not verified since it was packaged, so it does not become champion"):
        registry.rollback("1", "2")
    assert len(registry.history()) == 2


def test_a_version_that_is_packaged_anew_is_served_as_it_was_until_that_is_verified(registry: Registry) -> None:
    def served() -> str:
        champion = registry.servable_champion()
        assert champion
        return champion.bento

    registry.tag("1", {"bento": "kintsugi:2"})
    assert served() == "kintsugi:1"
    registry.verified("1", "kintsugi:2", alike=False)
    assert served() == "kintsugi:1"
    registry.verified("1", "kintsugi:2", alike=True)
    assert served() == "kintsugi:2"
    registry.verified("1", "kintsugi:2", alike=False)
    with pytest.raises(RegistryError, match="the champion, did not repair alike when it was served"):
        registry.servable_champion()


def test_entries_of_others_and_removed_versions_do_not_confuse(registry: Registry, settings: Settings) -> None:
    client = MlflowClient(settings.mlflow_uri)
    source = str(client.get_model_version("mender", "1").source)
    client.create_model_version("mender.ledger", source, tags={"note": "made by hand"})
    registry.promote("2")
    assert [entry.version for entry in registry.history()] == ["1", "2"]
    client.delete_model_version("mender", "1")
    with pytest.raises(RegistryError, match="has no version 1"):
        registry.rollback("1", "2")
    registry.tag("3", servable("2"))
    registry.promote("3")
    assert registry.aliases()[PREVIOUS] == "2"
