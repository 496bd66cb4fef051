"""Make the secrets of an installation: for Kubernetes a manifest each, for compose.yaml files of the same content.

``python3 infra/make_secrets.py`` writes ``infra/secrets/``, which git ignores, readable by its owner alone, and never
writes over what is there: passwords that a database has taken must not change behind its back (docs/operations.md
says how to rotate them). Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import sys
from pathlib import Path

USER = "admin"
OURS, KUBEFLOW = "kintsugi", "kubeflow"
_BYTES = 24
_FERNET = 32  # bytes of such a key


class SecretsExistError(ValueError):
    """There are secrets already."""


def make(database_host: str, database_password: str) -> dict[tuple[str, str], dict[str, str]]:
    """New secrets by namespace and name; an empty ``database_password`` makes a new one, for a database of our own."""
    database = database_password or secrets.token_urlsafe(_BYTES)
    admin = secrets.token_urlsafe(_BYTES)
    uri = f"postgresql+psycopg://mlflow:{database}@{database_host}:5432/mlflow"
    ini = (
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = {uri}\n"
        f"admin_username = {USER}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    login = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": admin}
    return {
        (OURS, "postgres"): {"password": database},
        (OURS, "mlflow"): {
            "MLFLOW_BACKEND_STORE_URI": uri,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(2 * _BYTES),
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(_FERNET)).decode(),
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": admin,
        },
        (OURS, "mlflow-auth"): {"basic_auth.ini": ini},
        (OURS, "serving"): {"api-keys": secrets.token_urlsafe(_BYTES) + "\n"},
        (OURS, "kintsugi"): login,
        (KUBEFLOW, "kintsugi"): login,
    }


def write(made: dict[tuple[str, str], dict[str, str]], folder: Path) -> None:
    """Write ``kubernetes/<namespace>-<name>.json`` and, for compose, ``compose/<name>.env`` or the file as it is.

    Raises ``SecretsExistError`` where ``folder`` holds any.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SecretsExistError(f"{folder} holds secrets already; move it away to make new ones")
    for (namespace, name), values in made.items():
        metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": OURS}}
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": values}
        _write_file(folder / "kubernetes" / f"{namespace}-{name}.json", json.dumps(manifest, indent=2) + "\n")
        if namespace != OURS:
            continue
        if all(key.isupper() for key in values):
            lines = "".join(f"{key}={value}\n" for key, value in values.items())
            _write_file(folder / "compose" / f"{name}.env", lines)
        else:
            for key, value in values.items():
                _write_file(folder / "compose" / f"{name}-{key}", value, readable=True)


def _write_file(path: Path, content: str, *, readable: bool = False) -> None:
    """``readable``: compose mounts it into containers that run as other users; its folder lets nobody else in."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o644 if readable else 0o600, exist_ok=False)
    path.write_text(content)


def main() -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(description="Make the secrets of an installation of Kintsugi.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "secrets")
    parser.add_argument("--database-host", default="postgres", help="PostgreSQL, as MLflow reaches it")
    parser.add_argument("--database-password", default="", help="of its user mlflow; - reads it from standard input")
    options = parser.parse_args()
    given = options.database_password
    password = sys.stdin.read().strip() if given == "-" else given
    try:
        write(make(options.database_host, password), options.output)
    except SecretsExistError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
