"""What infra/ says, against itself: the Dockerfile's parts, compose, secrets, the workflow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cryptography.fernet import Fernet

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT)


def requirements(build: str, *extras: str) -> list[str]:
    done = run("infra/docker/requirements.py", "pyproject.toml", build, *extras)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_torch_comes_from_its_own_index_alone_and_the_gpu_image_keeps_cards_before_turing() -> None:
    assert "torch==2.13.0+cpu" in requirements("cpu", "train")
    gpu = requirements("cu126", "train")
    assert "torch==2.13.0+cu126" in gpu
    assert "nvidia-cudnn-cu12<9.11" in gpu


def test_the_serving_image_is_asked_for_no_torch() -> None:
    names = {re.split(r"[=<>\[]", line)[0] for line in requirements("none", "serve")}
    assert {"bentoml", "onnxruntime", "pillow"} <= names
    assert not names & {"torch", "kfp", "mlflow", "scikit-image"}
    assert run("infra/docker/requirements.py", "pyproject.toml", "none", "train").returncode != 0


@pytest.mark.parametrize("target", ["cpu", "gpu", "serve"])
def test_every_image_is_pinned_audited_and_not_root(target: str) -> None:
    text = (INFRA / "docker/Dockerfile").read_text()
    base = re.search(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert base
    assert PINNED.fullmatch(base[1])
    stage = text.partition(f"FROM base AS {target}\n")[2].partition("\nFROM ")[0]
    assert f"COPY --from={target}-audit " in stage
    assert "check_image.py" in stage
    assert "USER 1000:1000" in stage
    assert 'image.version="${VERSION}"' in stage


def test_the_steps_of_the_build_are_ordered_so_that_code_is_last() -> None:
    text = (INFRA / "docker/Dockerfile").read_text()
    for target in ("cpu", "gpu", "serve"):
        stage = text.partition(f"FROM base AS {target}\n")[2].partition("\nFROM ")[0]
        assert stage.index(f"--from={target}-packages") < stage.index("--from=code") < stage.index("ARG VERSION")


def test_secrets_are_made_once_and_fit_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert run("infra/make_secrets.py", "--output", str(folder)).returncode == 0
    again = run("infra/make_secrets.py", "--output", str(folder))
    assert again.returncode == 2
    assert "holds secrets already" in again.stderr
    made = {path.stem: json.loads(path.read_text()) for path in (folder / "kubernetes").glob("*.json")}
    password = made["kintsugi-postgres"]["stringData"]["password"]
    assert f":{password}@postgres:5432/" in made["kintsugi-mlflow"]["stringData"]["MLFLOW_BACKEND_STORE_URI"]
    assert f":{password}@postgres:5432/" in made["kintsugi-mlflow-auth"]["stringData"]["basic_auth.ini"]
    login = made["kintsugi-kintsugi"]["stringData"]
    assert login == made["kubeflow-kintsugi"]["stringData"]
    assert login["MLFLOW_TRACKING_PASSWORD"] == made["kintsugi-mlflow"]["stringData"]["MLFLOW_AUTH_ADMIN_PASSWORD"]
    key = made["kintsugi-mlflow"]["stringData"]["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"]
    assert Fernet(key).decrypt(Fernet(key).encrypt(b"a webhook's secret")) == b"a webhook's secret"
    assert f"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY={key}\n" in (folder / "compose" / "mlflow.env").read_text()
    assert (folder / "kubernetes" / "kintsugi-mlflow.json").stat().st_mode & 0o077 == 0
    assert (folder / "compose").stat().st_mode & 0o077 == 0


def test_every_secret_that_the_manifests_mount_is_made(tmp_path: Path) -> None:
    assert run("infra/make_secrets.py", "--output", str(tmp_path / "secrets")).returncode == 0
    made = {json.loads(path.read_text())["metadata"]["name"] for path in (tmp_path / "secrets/kubernetes").iterdir()}
    text = "".join(path.read_text() for path in (INFRA / "kustomize").rglob("*.yaml"))
    used = set(re.findall(r"secretName: (\S+)|secretRef:\s+name: (\S+)", text))
    assert {first or second for first, second in used} <= made


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
    return loaded


def test_compose_runs_hardened_containers_that_only_this_machine_reaches(tmp_path: Path) -> None:
    found = compose()
    assert run("infra/make_secrets.py", "--output", str(tmp_path / "secrets")).returncode == 0
    for name, service in found["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["mem_limit"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert ":latest" not in service["image"], name
        for file in service.get("env_file", []):
            assert (tmp_path / file).is_file(), file
    for secret in found["secrets"].values():
        assert (tmp_path / secret["file"]).is_file(), secret
    assert found["services"]["mlflow"]["env_file"] == ["secrets/compose/mlflow.env"]
    assert PINNED.fullmatch(found["services"]["postgres"]["image"])
    assert "outside" not in found["services"]["postgres"]["networks"]


def test_compose_and_the_cluster_run_one_postgresql() -> None:
    text = (INFRA / "kustomize/overlays/local/postgres/statefulset.yaml").read_text()
    assert compose()["services"]["postgres"]["image"] in text


def test_the_workflow_pins_its_actions_and_asks_for_little() -> None:
    text = (ROOT / ".github/workflows/ci.yaml").read_text()
    uses = re.findall(r"uses: (\S+)(.*)", text)
    assert uses
    for action, comment in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.search(r"# v\d+\.\d+\.\d+", comment), action
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    for job in ("lint", "test"):  # without Terraform its checks are left out, and the runners have none
        assert any("setup-terraform" in step.get("uses", "") for step in workflow["jobs"][job]["steps"]), job
    verbs = set(re.findall(r"^([a-z]+):.*##|^(push):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {first or second for first, second in verbs}
    assert set(re.findall(r"make ([a-z]+)", text)) <= known


def test_hadolint_finds_nothing() -> None:
    tool = ROOT / ".tools/bin/hadolint"
    if not tool.exists():
        pytest.skip("hadolint comes with 'make infra'")
    done = subprocess.run([str(tool), str(INFRA / "docker/Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def documents() -> dict[str, str]:
    """What is said about running it, by file."""
    return {name: (ROOT / "docs" / name).read_text() for name in ("operations.md", "kubeflow.md")}


def shell(text: str) -> str:
    """The commands of a document, each on one line; a heredoc's content is another matter."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return re.sub(r"(?s)(<<'?EOF'?\n).*?^EOF$", r"\1", blocks, flags=re.MULTILINE).replace("\\\n", " ")


def manifests(text: str) -> Iterator[dict[str, Any]]:
    found = re.findall(r"^```yaml\n(.*?)^```|<<'?EOF'?\n(.*?)^EOF$", text, re.MULTILINE | re.DOTALL)
    return (yaml.safe_load(block or heredoc) for block, heredoc in found)


def test_documents_name_files_that_are_there(tmp_path: Path) -> None:
    assert run("infra/make_secrets.py", "--output", str(tmp_path / "secrets")).returncode == 0
    for text in documents().values():
        named = re.findall(r"`((?:infra|components|pipelines|docs|tests|\.github)/[\w./-]+)`", text)
        named += re.findall(r"(?<![\w/.])((?:infra|docs)/[\w./-]+)", shell(text))
        assert named
        for name in named:
            assert (ROOT / name).exists() or (tmp_path / name.removeprefix("infra/")).exists(), name


def test_documents_name_verbs_options_and_outputs_that_exist() -> None:
    from typer.main import get_command

    from pipelines.cli import cli

    verbs = get_command(cli).commands  # type: ignore[attr-defined]
    makefile = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    outputs = re.findall(r'^output "(\w+)"', (INFRA / "terraform/outputs.tf").read_text(), re.MULTILINE)
    for text in documents().values():
        for verb, rest in re.findall(r"(?<![\w:-])kintsugi (submit|lint|compile|models|rollback)\b([^`\n#]*)", text):
            known = {name for parameter in verbs[verb].params for name in parameter.opts}
            assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known, (verb, rest)
        for verb in re.findall(r"(?:^|[`= ])make ([a-z]+)", shell(text)):
            assert verb in makefile, verb
        assert set(re.findall(r"terraform output -raw (\w+)", text)) <= set(outputs)


def test_documents_name_workloads_and_metrics_that_exist() -> None:
    parsed = [yaml.safe_load(path.read_text()) for path in (INFRA / "kustomize").rglob("*.yaml")]
    known = {(m["kind"].lower(), m["metadata"]["name"]) for m in parsed if isinstance(m, dict) and "metadata" in m}
    ours = documents()["operations.md"]
    for line in [line for line in shell(ours).splitlines() if "-n kintsugi " in line]:
        for kind, name in re.findall(r"\b(deployment|statefulset|svc)/([a-z-]+)", line):
            assert ({"svc": "service"}.get(kind, kind), name) in known, line
    metrics = (ROOT / "serving/metrics.py").read_text()
    for name in set(re.findall(r"\b(kintsugi_\w+)\{?", ours)):
        assert f'"{name.removesuffix("_total")}"' in metrics, name


def test_manifests_in_documents_are_valid() -> None:
    found = [manifest for text in documents().values() for manifest in manifests(text)]
    assert {manifest["kind"] for manifest in found} == {"Job", "PersistentVolumeClaim"}
    for manifest in found:
        kubernetes_validate.validate(manifest, "1.33", strict=True)
