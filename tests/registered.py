"""Versions of a registered model for tests, without a training."""

from __future__ import annotations

from components.inpainting.scores import Decision

SERVABLE = {
    "decision": Decision(admitted=True, rules=[]).model_dump_json(), "bento": "kintsugi:1", "verified": "true"
}  # fmt: skip
"""Tags of a version that was admitted, packaged and verified."""
