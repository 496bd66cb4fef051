"""What infra/ says, against itself: the Dockerfile's parts, compose, secrets, the workflow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    verbs = set(re.findall(r"^([a-z]+):.*##|^(push):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {first or second for first, second in verbs}
    assert set(re.findall(r"make ([a-z]+)", text)) <= known


def test_hadolint_finds_nothing() -> None:
    tool = ROOT / ".tools/bin/hadolint"
    if not tool.exists():
        pytest.skip("hadolint comes with 'make infra'")
    done = subprocess.run([str(tool), str(INFRA / "docker/Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_documents_name_files_that_are_there() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    for name in re.findall(r"`((?:infra|components|tests|\.github)/[\w./-]+)`", text):
        assert (ROOT / name).exists() or name.startswith("infra/secrets"), name
