"""Whether the compilers that ``torch.compile`` calls are here and work."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

_TIMEOUT = 30  # seconds; the probe takes half of one
_CPP_PROBE = "#include <Python.h>\n#include <omp.h>\n#include <vector>\n"
_C_PROBE = "#include <Python.h>\n"


def cpp_compiler() -> str:
    """The C++ compiler that torch's inductor would call (``torch._inductor.config.cpp.cxx``)."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def cpp_problem() -> str:
    """Why inductor could not build kernels for a CPU, and what to do; empty where it can. Takes half a second.

    Its kernels are Python extensions with OpenMP, so the probe is one as well.
    """
    openmp = [] if sys.platform == "darwin" else ["-fopenmp"]  # Apple's compiler has no such flag
    return _try_to_build(cpp_compiler(), ["-x", "c++", *openmp], _CPP_PROBE, "g++, or name yours in CXX")


def triton_problem() -> str:
    """Why Triton could not build kernels for a GPU, and what to do; empty where it can.

    Besides its own compiler it needs a C compiler and Python's headers, for the code that launches its
    kernels (``triton.runtime.build``).
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; it comes with torch's CUDA builds, install torch again with its dependencies"
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or "gcc"
    return _try_to_build(compiler, ["-x", "c"], _C_PROBE, "gcc, or name yours in CC")


def _try_to_build(compiler: str, flags: list[str], source: str, fix: str) -> str:
    include = f"-I{sysconfig.get_path('include')}"
    with tempfile.TemporaryDirectory() as folder:
        command = [compiler, *flags, "-shared", "-fPIC", include, "-", "-o", str(Path(folder) / "probe.so")]
        try:
            done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=_TIMEOUT)
        except OSError:
            return f"there is no compiler {compiler!r}; install {fix}"
        except subprocess.TimeoutExpired:
            return f"{compiler} did not finish an empty file in {_TIMEOUT} s; install {fix}"
    if done.returncode == 0:
        return ""
    complaint = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
    headers = "Python's headers (python3.11-dev)" if "Python.h" in complaint else fix
    return f"{compiler} cannot build a Python extension ({complaint}); install {headers}"
