"""Print what pip installs into one image: the requirements of some extras, torch's build by name.

Used in the Dockerfile: ``requirements.py pyproject.toml cpu train gs ... > cpu.txt``. A local version such as
``2.13.0+cpu`` exists on torch's own index alone, so no other index can slip in a torch of its own.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

CUDNN = "nvidia-cudnn-cu12<9.11"
"""The first cuDNN without kernels for cards before Turing (sm_75) is 9.11."""


def requirements(pyproject: Path, build: str, extras: list[str]) -> list[str]:
    """The base requirements and those of ``extras``; ``build`` is torch's: cpu, cu126, or none for no torch.

    Raises ``ValueError`` where torch is wanted and not pinned, or comes although it is not wanted.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    found = sorted({*project["dependencies"], *(line for e in extras for line in project["optional-dependencies"][e])})
    (*pinned,) = (line for line in found if re.match(r"torch==[\d.]+$", line))
    if len(pinned) != (build != "none"):
        raise ValueError(f"torch of build {build!r} and extras {extras} do not fit: {pinned or 'it is not pinned'}")
    lines = [f"{line}+{build}" if line in pinned else line for line in found]
    return [*lines, CUDNN] if build.startswith("cu") else lines


if __name__ == "__main__":
    path, torch_build, *names = sys.argv[1:]
    print("\n".join(requirements(Path(path), torch_build, names)))
