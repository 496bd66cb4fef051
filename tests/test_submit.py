"""``kintsugi submit`` against a server that is made from the API's own contract."""

from __future__ import annotations

import http.server
import io
import json
import ssl
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from components.config import PipelineConfig
from components.form import defaults, fill
from pipelines.compile import Images, compile_pipeline
from pipelines.kubeflow import Kubeflow
from pipelines.login import Access, SubmitError
from pipelines.submit import Progress, Submission, check_cron, follow_run, schedule_pipeline, submit_pipeline, verdict
from tests.conftest import Kintsugi
from tests.kubeflow_server import OPERATIONS, Server, serving
from tests.loopback import serve_http

RUN = PipelineConfig()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_pipeline(tmp_path_factory.mktemp("compiled") / "kintsugi.yaml")


def submit(package: Path, host: str, config: PipelineConfig = RUN, **access: object) -> tuple[Kubeflow, str]:
    console = Console(file=io.StringIO())
    return submit_pipeline(Submission(package, config), Access(host, **access), console)  # type: ignore[arg-type]


def test_the_contract_holds_the_calls_that_we_make() -> None:
    names = {operation.name: operation for operation in OPERATIONS}
    assert len(names) > 30
    assert names["run_service_create_run"].body == "V2beta1Run"
    assert names["run_service_create_run"].answer == "V2beta1Run"
    assert "filter" in names["pipeline_service_list_pipelines"].query
    assert names["run_service_get_run"].pattern.match("/apis/v2beta1/runs/abc")


def test_a_run_is_started_with_the_form_filled_in(package: Path) -> None:
    server = Server()
    config = PipelineConfig.from_flat({"train_steps": 7, "train_seed": 3, "run_gpu": "none"})
    with serving(server) as host:
        api, run_id = submit(package, host, config)
        assert api.page(run_id) == f"{host}/#/runs/details/run-1"
    (run,) = server.runs
    form = run["runtime_config"]["parameters"]
    assert form == defaults() | {"train_steps": 7, "run_gpu": "none", "run_overrides": "train_seed=3"}
    reference = {"pipeline_id": "pipeline-1", "pipeline_version_id": "pipeline_version-1"}
    assert run["pipeline_version_reference"] == reference
    assert [experiment["display_name"] for experiment in server.experiments] == ["kintsugi"]


def test_a_version_is_uploaded_once_and_an_experiment_made_once(package: Path, tmp_path: Path) -> None:
    server = Server()
    with serving(server) as host:
        submit(package, host)
        submit(package, host)
        assert server.seen.count("upload_pipeline") == server.seen.count("upload_pipeline_version") == 1
        submit(compile_pipeline(tmp_path / "other.yaml", Images("registry.example/cpu:2")), host)
    assert server.seen.count("upload_pipeline_version") == 2
    assert (len(server.pipelines), len(server.experiments), len(server.runs)) == (1, 1, 3)


def test_the_server_refuses_what_the_form_does_not_offer(package: Path) -> None:
    server = Server()
    with serving(server) as host:
        api, _ = submit(package, host)
        version = ("pipeline-1", "pipeline_version-1")
        for wrong in ({"run_gpu": "k80"}, {"train_steps": "many"}, {"train_stpes": 1}):
            with pytest.raises(SubmitError, match=f"answered 400: parameter {next(iter(wrong))}"):
                api.start(version, "experiment-1", "wrong", fill(RUN) | wrong, "")


def test_a_schedule_becomes_a_recurring_run(package: Path) -> None:
    server = Server()
    with serving(server) as host:
        nightly = Submission(package, RUN, account="bot")
        page = schedule_pipeline(nightly, Access(host), Console(file=io.StringIO()), "0 3 * * *")
        assert page == f"{host}/#/recurringrun/details/recurring_run-1"
    (recurring,) = server.recurring
    assert recurring["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (recurring["mode"], recurring["max_concurrency"], recurring["no_catchup"]) == ("ENABLE", "1", True)
    assert recurring["service_account"] == "bot"
    assert recurring["runtime_config"]["parameters"] == defaults()


@pytest.mark.parametrize("cron", ["", "nightly", "0 3 * *", "0 3 * * * * *", "0 3 * * ;"])
def test_a_schedule_that_is_none_is_refused(cron: str) -> None:
    with pytest.raises(SubmitError, match=r"write e\.g\. '0 3"):
        check_cron(cron)


def follow(server: Server, package: Path, config: PipelineConfig = RUN) -> tuple[str, str]:
    told = io.StringIO()
    with serving(server) as host:
        api, run_id = submit(package, host, config)
        return follow_run(api, run_id, config, Console(file=told, width=200), poll=0), told.getvalue()


STEPS = ("plan", "ingest", "prepare", "train", "evaluate", "gate", "register", "package", "verify", "promote")


def ran(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "SUCCEEDED")


def test_a_run_is_followed_to_its_verdict(package: Path) -> None:
    script = [
        ("PENDING", {}),
        ("RUNNING", {"plan": "RUNNING"}),
        ("RUNNING", {**ran("plan", "ingest", "prepare"), "train": "RUNNING"}),
        ("SUCCEEDED", ran(*STEPS)),
    ]
    word, told = follow(Server(script), package)
    assert word == "Promoted: the model is champion now."
    assert told.splitlines()[:2] == ["… plan runs", "✓ plan"]
    assert "… train runs" in told
    assert [line.partition(" ")[0] for line in told.splitlines()[-2:]] == ["✓", "run"]
    assert told.rstrip().endswith("/#/runs/details/run-1")


def test_a_server_that_stays_away_for_a_while_is_waited_for(package: Path) -> None:
    assert follow(Server([("SUCCEEDED", ran("plan"))], outages=5), package)[0].startswith("Refused")
    with pytest.raises(SubmitError, match=r"503.*the run goes on, see http"):
        follow(Server(outages=100), package)


def test_a_failed_run_names_the_step_and_the_reason(package: Path) -> None:
    steps = {**ran("plan", "ingest", "prepare"), "train": "FAILED"}
    server = Server([("FAILED", steps)], {"train": "TrainingDiverged: the loss\nis no number"})
    with pytest.raises(SubmitError, match=r"failed in train \(TrainingDiverged: the loss is no number\); http.*run-1"):
        follow(server, package)
    with pytest.raises(SubmitError, match=r"failed \(canceled\)"):
        follow(Server([("CANCELED", {})]), package)


@pytest.mark.parametrize(
    ("steps", "mode", "word"),
    [
        (STEPS[:6], "enforce", "Refused"),
        (STEPS[:6], "dry_run", "Dry run"),
        (STEPS[:9], "enforce", "Not promoted"),
        (STEPS, "manual", "Admitted"),
        (STEPS, "enforce", "Promoted"),
    ],
)
def test_the_verdict_is_told_by_the_steps_that_ran(steps: tuple[str, ...], mode: str, word: str) -> None:
    config = PipelineConfig.from_flat({"gate_mode": mode})
    assert verdict(Progress("SUCCEEDED", ran(*steps)), config).startswith(word)


def test_a_token_a_token_file_and_cookies_are_sent(package: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    with serving(Server(token="secret")) as host:
        submit(package, host, token="secret")
        submit(package, host, token_file=tmp_path / "token")
        with pytest.raises(SubmitError, match=r"answered 401.*log in: --token"):
            submit(package, host)
        with pytest.raises(SubmitError, match="no token can be read from"):
            submit(package, host, token_file=tmp_path / "none")
    with serving(Server(cookie="authservice_session=abc")) as host:
        submit(package, host, cookies="authservice_session=abc")


class Google(http.server.BaseHTTPRequestHandler):
    """Google's token endpoint: an identity for whoever has consented."""

    asked: ClassVar[list[dict[str, list[str]]]] = []

    def do_POST(self) -> None:
        """Answer one exchange of a refresh token."""
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.asked.append(form)
        known = form["refresh_token"] == ["consent"] and form["audience"] == ["proxy.apps"]
        self.send_response(200 if known else 400)
        self.end_headers()
        self.wfile.write(b'{"id_token": "secret"}' if known else b'{"error": "invalid_grant"}')


def test_identity_aware_proxy_is_logged_in_to_as_kfp_does(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp.client import auth

    desktop: dict[str, Any] = {"other_client_id": "desktop.apps", "other_client_secret": "s"}
    consents = {
        client: desktop | {"refresh_token": token} for client, token in (("proxy.apps", "consent"), ("old", "x"))
    }
    (tmp_path / "credentials.json").write_text(json.dumps(consents))
    monkeypatch.setattr(auth, "LOCAL_KFP_CREDENTIAL", str(tmp_path / "credentials.json"))
    with serve_http(Google) as google, serving(Server(token="secret")) as host:
        monkeypatch.setattr(auth, "OAUTH_TOKEN_URI", f"http://{google}/token")
        submit(package, host, client_id="proxy.apps")
        assert len(Google.asked) == 1  # for all calls of an hour
        monkeypatch.setattr("pipelines.login._GOOGLE_TOKEN_SECONDS", 0)
        submit(package, host, client_id="proxy.apps", **desktop)
        assert len(Google.asked) > 3
        with pytest.raises(SubmitError, match=r"Google gives no token for --client-id old .*expired credentials"):
            submit(package, host, client_id="old")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        with pytest.raises(SubmitError, match=r"no token for --client-id new .*none.json.*--other-client-id"):
            submit(package, host, client_id="new")
        with pytest.raises(SubmitError, match="needs both --other-client-id and"):
            submit(package, host, client_id="new", other_client_id="desktop.apps")
        with pytest.raises(SubmitError, match="give its --client-id as well"):
            submit(package, host, **desktop)


def test_a_proxy_on_the_way_is_asked(package: Path) -> None:
    server = Server()
    with serving(server) as proxy:
        submit(package, "http://kubeflow.invalid", proxy=proxy)
        assert len(server.runs) == 1
        with pytest.raises(SubmitError, match="cannot be reached"):
            submit(package, "http://kubeflow.invalid")


def test_a_wrong_namespace_is_told_and_a_missing_one_asked_for(package: Path) -> None:
    server = Server(multi_user=True, namespaces=("anna",))
    with serving(server) as host:
        submit(package, host, namespace="anna")
        assert server.experiments[0]["namespace"] == "anna"
        with pytest.raises(SubmitError, match=r"answered 403.*may not do that in namespace 'otto'.*--namespace"):
            submit(package, host, namespace="otto")
        with pytest.raises(SubmitError, match="serves several users; say in whose namespace"):
            submit(package, host)


def test_what_is_no_kubeflow_is_one_sentence(package: Path, tmp_path: Path) -> None:
    with pytest.raises(SubmitError, match=r"127.0.0.1:1 cannot be reached .*check --host"):
        submit(package, "http://127.0.0.1:1")
    with serving(Server(page=b"<html>log in</html>")) as host:
        with pytest.raises(
            SubmitError, match=r"not as Kubeflow Pipelines does.*login page, give --token, --client-id .*--cookies"
        ):
            submit(package, host)
        with pytest.raises(SubmitError, match=r"no file .* for --ca-cert"):
            submit(package, host, ca_cert=tmp_path / "none.pem")
    with serving(Server()) as host, pytest.raises(SubmitError, match=r"answered 404.*is that the address of Kubeflow"):
        submit(package, f"{host}/elsewhere")


def test_a_certificate_that_nobody_knows_is_told(package: Path, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(Server(), context) as host:
        address = host.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(SubmitError, match="give its CA with --ca-cert"):
            submit(package, address)
        submit(package, address, ca_cert=certificate)


def test_the_command_follows_a_run_and_refuses_images_that_may_change(kintsugi: Kintsugi) -> None:
    server = Server([("SUCCEEDED", ran(*STEPS))])
    with serving(server) as host:
        refused = kintsugi("submit", "--host", host)
        assert refused.returncode == 2 and "has no digest" in refused.stderr and not server.seen
        result = kintsugi("submit", "--host", host, "--allow-tags", "--preset", "cifar", "--set", "run_gpu=none")
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[-1] == "Promoted: the model is champion now."
        assert f"{host}/#/runs/details/run-1" in result.stdout
        nightly = kintsugi("submit", "--host", host, "--allow-tags", "--schedule", "0 3 * * *")
        assert nightly.stdout.splitlines()[-1] == f"schedule {host}/#/recurringrun/details/recurring_run-1"
    assert server.runs[0]["runtime_config"]["parameters"]["run_preset"] == "cifar"
