"""The Terraform module: parsed, in canonical form, with the pipeline's own GPU profiles, and its refusals for real."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest

MODULE = Path(__file__).parent.parent / "infra" / "terraform"
PROFILES: dict[str, dict[str, Any]] = json.loads(
    (MODULE.parent.parent / "components" / "gpu_profiles.json").read_text()
)
needs_terraform = pytest.mark.skipif(not shutil.which("terraform"), reason="terraform is not installed")


def parse(path: Path) -> dict[str, Any]:
    with path.open() as file:
        parsed: dict[str, Any] = hcl2.load(file)
        return parsed


def resources() -> dict[tuple[str, str], dict[str, Any]]:
    """Every resource of the module by type and name."""
    return {
        (kind.strip('"'), name.strip('"')): body
        for path in MODULE.glob("*.tf")
        for block in parse(path).get("resource", [])
        for kind, named in block.items()
        for name, body in named.items()
    }


def plain(value: Any) -> str:
    """A value as text, without the parser's marks."""
    return str(value).strip('"').removeprefix("${").removesuffix("}")


@pytest.mark.parametrize("path", sorted(MODULE.rglob("*.tf*")), ids=lambda path: path.name)
def test_every_file_parses(path: Path) -> None:
    if ".terraform" not in path.parts:
        assert parse(path)


@needs_terraform
def test_the_files_are_in_canonical_form() -> None:
    done = subprocess.run(["terraform", "fmt", "-check", "-recursive", str(MODULE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_pools_start_after_the_cpu_pool_and_leave_the_taint_to_gke() -> None:
    gpu = resources()["google_container_node_pool", "gpu"]
    assert "google_container_node_pool.cpu" in plain(gpu["depends_on"][0])
    (autoscaling,) = gpu["autoscaling"]
    assert plain(autoscaling["total_min_node_count"]) == "0"
    (node,) = gpu["node_config"]
    assert "taint" not in node
    assert plain(node["guest_accelerator"][0]["type"]) == "local.profiles[each.key].accelerator"
    assert plain(node["machine_type"]) == "local.profiles[each.key].machine_type"


def test_nothing_is_public() -> None:
    found = resources()
    (private,) = found["google_container_cluster", "this"]["private_cluster_config"]
    assert plain(private["enable_private_nodes"]) == "True"
    (settings,) = found["google_sql_database_instance", "mlflow"]["settings"]
    assert plain(settings["ip_configuration"][0]["ipv4_enabled"]) == "False"
    for name in ("this", "logs"):
        assert plain(found["google_storage_bucket", name]["public_access_prevention"]) == "enforced"


def test_who_may_do_what_is_little() -> None:
    (names,) = [block for block in parse(MODULE / "identity.tf")["locals"] if "grants" in block]
    grants = {plain(key): {plain(k): plain(v) for k, v in row.items()} for key, row in names["grants"].items()}
    assert sorted((row["member"], row["bucket"], row["role"]) for row in grants.values()) == [
        ("local.mlflow", "mlflow", "roles/storage.objectUser"),
        ("local.pages", "pipelines", "roles/storage.objectViewer"),
        ("local.steps", "data", "roles/storage.objectViewer"),
        ("local.steps", "pipelines", "roles/storage.objectUser"),
    ]
    text = "".join(path.read_text() for path in MODULE.glob("*.tf"))
    assert not re.findall(r"roles/(?:owner|editor|viewer)\b|[aA]dmin\"|allUsers|allAuthenticatedUsers", text)


def test_the_overlay_and_the_module_name_the_same_network() -> None:
    address = resources()["google_compute_global_address", "database"]
    policy = (MODULE.parent / "kustomize/overlays/gke/networkpolicy-mlflow.yaml").read_text()
    assert f"{plain(address['address'])}/{plain(address['prefix_length'])}" in policy


def test_a_profile_can_be_had_or_has_ended() -> None:
    for name, profile in PROFILES.items():
        assert bool(profile["ended"]) != bool(profile["machine_type"]), name
        assert profile["driver"] in ("", "DEFAULT", "LATEST"), name
    assert PROFILES["p100"]["ended"] == "2026-09-15"


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module's variables and profiles without its resources, which Terraform plans without a provider."""
    root = tmp_path_factory.mktemp("terraform")
    module = root / "infra" / "terraform"
    module.mkdir(parents=True)
    for name in ("variables.tf", "profiles.tf"):
        shutil.copy(MODULE / name, module)
    (root / "components").mkdir()
    (root / "components" / "gpu_profiles.json").write_text(json.dumps(PROFILES))
    subprocess.run(["terraform", "init", "-input=false"], cwd=module, check=True, capture_output=True)
    return module


def plan(module: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["terraform", "plan", "-input=false", "-no-color", *arguments]
    return subprocess.run(command, cwd=module, capture_output=True, text=True)


@needs_terraform
@pytest.mark.parametrize("environment", sorted((MODULE / "environments").glob("*.tfvars")), ids=lambda p: p.stem)
def test_environments_are_accepted(rules: Path, environment: Path) -> None:
    done = plan(rules, f"-var-file={environment}")
    assert done.returncode == 0, done.stderr


@needs_terraform
@pytest.mark.parametrize(
    ("pools", "sentence"),
    [
        (
            "{p100={max_nodes=1}}",
            "Compute Engine has offered no P100 since 2026-09-15. Choose of a100, h100, l4, t4, v100",
        ),
        ("{k80={max_nodes=1}}", "gpu_pools names a profile that does not exist; there are a100, h100, l4, p100"),
        ("{h100={max_nodes=1}}", "single cards of h100 as spot nodes only; set spot = true there"),
    ],
)
def test_what_cannot_be_had_stops_the_plan(rules: Path, pools: str, sentence: str) -> None:
    done = plan(rules, "-var=project=example", f"-var=gpu_pools={pools}")
    assert done.returncode == 1
    said = " ".join(word for word in done.stderr.split() if word != "│")
    assert sentence in said


@needs_terraform
def test_the_clusters_api_is_never_open_to_everybody(rules: Path) -> None:
    done = plan(rules, "-var=project=example", '-var=authorized_networks={all="0.0.0.0/0"}')
    assert "open the cluster's API to everybody" in " ".join(w for w in done.stderr.split() if w != "│")
