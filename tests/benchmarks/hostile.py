"""How long the endpoint takes to refuse files that claim to be huge, beside the repair of a small picture.

``python -m tests.benchmarks.hostile``; everything happens in this process, the upload included.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from components.inpainting.errors import ImageError
from components.inpainting.images import PictureFile
from serving.repair import FORMATS
from tests.served import client_of, make_parts, post, write_model
from tests.test_serving_hostile import BOMBS, HOLE, PICTURE

REPEATS = 5


def milliseconds(bomb: bytes) -> float:
    """The median time in which a file is refused, once it has arrived."""
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        try:
            PictureFile(bomb, formats=FORMATS)
        except ImageError:
            took.append((time.perf_counter() - began) * 1000)
    assert len(took) == REPEATS
    return statistics.median(took)


def main() -> None:
    """Print a line for every bomb."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "model")
        with client_of(make_parts(Path(folder))) as client:
            print(f"{'repair of 48x40 pixels':32} {post(client, PICTURE, HOLE).headers['server-timing']}")
            for name, (make, status) in BOMBS.items():
                bomb = make()
                assert post(client, bomb, HOLE).status_code == status
                print(f"{name:32} {len(bomb):>12,} bytes {milliseconds(bomb):8.1f} ms, {status}")


if __name__ == "__main__":
    main()
