"""Assert, at the end of an image's build, what must be in it, what must not, and that its label tells the truth."""

from __future__ import annotations

import importlib.util
import os
import sys

from components.manifest import code_version


def main(names: list[str]) -> None:
    """Modules to be found, or with a ``-`` before them not to be; raises ``SystemExit`` where it is otherwise."""
    for name in names:
        wanted, module = not name.startswith("-"), name.removeprefix("-")
        if (importlib.util.find_spec(module) is not None) != wanted:
            raise SystemExit(f"{module} {'is missing from' if wanted else 'must not be in'} this image")
    version = os.environ.get("VERSION", "")
    if version != code_version():
        raise SystemExit(f"VERSION is {version!r}, but the code in this image is {code_version()!r}")
    print(f"{code_version()}, {', '.join(names)}")


if __name__ == "__main__":
    main(sys.argv[1:])
