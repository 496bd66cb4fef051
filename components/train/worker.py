"""One process of a training on several GPUs: ``torchrun ... -m components.train.worker order.json``."""

from __future__ import annotations

import sys
from pathlib import Path

from components.config import Settings
from components.train.session import Order, run_training

if __name__ == "__main__":
    run_training(Order.model_validate_json(Path(sys.argv[1]).read_bytes()), Settings())
