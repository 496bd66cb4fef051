"""What a Bento holds of code: our modules that the service imports, and exact pins of everything else it needs."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import components

ROOT = Path(components.__file__).parent.parent
FORBIDDEN = frozenset({"cv2", "kfp", "mlflow", "scipy", "skimage", "torch"})
"""What the serving process does not load; our modules that cannot be imported without it stay out of the Bento."""

_SERVICE = "serving"
_OURS = (_SERVICE, "components")
_UNSEEN = ("bentoml", "httptools", "python-multipart", "uvloop")
"""What the server uses and our code does not import by name."""


@dataclass(frozen=True)
class Imports:
    """The modules that one of our files imports, dotted: when it is loaded, and later, inside of functions."""

    at_load: frozenset[str]
    later: frozenset[str]


def service_files() -> list[Path]:
    """Our files that the service needs, below ``ROOT``: its folder, and every module of ours that it imports."""
    folder = [path for path in (ROOT / _SERVICE).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted({*folder, *(file for name in service_modules() if (file := _file(name)))})


def service_modules() -> set[str]:
    """The modules of ours that the service imports, packages that hold them included."""
    waiting = [_name(path) for path in sorted((ROOT / _SERVICE).rglob("*.py"))]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found and _loadable(name, frozenset()):
            found.add(name)
            imports = _imports(name)
            waiting += [other for other in _parents(name) | imports.at_load | imports.later if _file(other)]
    return found


def exact_pins() -> list[str]:
    """``name==version`` of all that the service's modules import and all that this needs in turn, as installed here."""
    tops = {top.partition(".")[0] for name in service_modules() for top in _third_party(_imports(name))}
    providers = importlib.metadata.packages_distributions()
    roots = {provider for top in tops - FORBIDDEN for provider in providers.get(top, [])}
    return sorted(f"{name}=={importlib.metadata.version(name)}" for name in _closure({*roots, *_UNSEEN}))


def _closure(roots: Iterable[str]) -> set[str]:
    """Distributions and, on this machine, all that they require, extras included; by canonical name."""
    waiting = [Requirement(root) for root in sorted(roots)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key not in seen:
            seen.add(key)
            waiting += _requirements(wanted)
    return {name for name, _ in seen}


def _requirements(wanted: Requirement) -> Iterator[Requirement]:
    for line in importlib.metadata.requires(wanted.name) or []:
        requirement = Requirement(line)
        extras = wanted.extras or {""}
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement


def _third_party(imports: Imports) -> set[str]:
    tops = {name.partition(".")[0] for name in imports.at_load | imports.later}
    return tops - sys.stdlib_module_names - set(_OURS)


def _loadable(name: str, above: frozenset[str]) -> bool:
    """Whether one of our modules can be imported without what is forbidden."""
    if name in above:
        return True
    for other in _parents(name) | _imports(name).at_load:
        if other.partition(".")[0] in FORBIDDEN or (_file(other) and not _loadable(other, above | {name})):
            return False
    return True


@cache  # else every module is parsed anew for every one that imports it
def _imports(name: str) -> Imports:
    path = _file(name)
    assert path is not None, name
    tree = ast.parse(path.read_text())
    at_load = frozenset(_imported(tree.body, inside=False))
    return Imports(at_load, frozenset(_imported(tree.body, inside=True)) - at_load)


def _imported(body: Iterable[ast.AST], *, inside: bool) -> Iterator[str]:
    """Dotted names of modules, and of what is taken from them, for that may be a module too; type checks left out."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        elif inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imported(ast.iter_child_nodes(node), inside=inside)


def _parents(name: str) -> set[str]:
    """The packages that hold a module of ours."""
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def _file(name: str) -> Path | None:
    """The file of a module of ours; ``None`` for what is none."""
    if name.partition(".")[0] not in _OURS:
        return None
    stem = ROOT.joinpath(*name.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
