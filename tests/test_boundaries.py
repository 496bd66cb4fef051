"""Who may load what: asked of fresh interpreters, since imports of this process say nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import pipelines.training_pipeline", {"torch", "mlflow", "bentoml"}),
        ("import pipelines.cli", {"torch", "mlflow", "bentoml", "kfp"}),
        ("import serving.service", {"torch", "mlflow", "kfp", "skimage"}),
        ("import components.inpainting.tiling, components.inpainting.masks", {"torch", "scipy", "skimage", "cv2"}),
    ],
)
def test_imports_load_no_more_than_they_may(statement: str, forbidden: set[str]) -> None:
    assert not loaded_by(statement) & forbidden


def test_contracts_of_the_house_hold() -> None:
    result = subprocess.run(["lint-imports"], capture_output=True, text=True, env=_with_scripts())
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


def _with_scripts() -> dict[str, str]:
    import os
    import sysconfig

    return os.environ | {"PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"}
