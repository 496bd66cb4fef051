"""The example receiver of MLflow's webhook: only what MLflow signed counts, and the same news once."""

from __future__ import annotations

import json
import runpy
import time
from pathlib import Path

from mlflow.webhooks.delivery import _generate_hmac_signature

RECEIVER = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "alias_receiver.py"))
genuine, is_news = RECEIVER["genuine"], RECEIVER["is_news"]


def news(version: int, minute: int = 0) -> str:
    data = {"name": "mender", "alias": "champion", "version": str(version)}
    return json.dumps({"timestamp": f"2026-11-27T10:{minute:02}:00.000001+00:00", "data": data})


BODY = news(2)


def test_only_what_mlflow_signed_lately_is_genuine() -> None:
    now, old = str(int(time.time())), str(int(time.time()) - 3600)
    signature = _generate_hmac_signature("secret", "id", now, BODY)
    assert genuine("secret", "id", now, BODY.encode(), signature)
    assert not genuine("other", "id", now, BODY.encode(), signature)
    assert not genuine("secret", "id", now, BODY.encode() + b" ", signature)
    assert not genuine("secret", "id", now, BODY.encode(), "v1,\u00e9")
    assert not genuine("secret", "id", old, BODY.encode(), _generate_hmac_signature("secret", "id", old, BODY))
    assert not genuine("secret", "id", "", BODY.encode(), signature)


def test_the_same_news_counts_once(tmp_path: Path) -> None:
    state = tmp_path / "alias.json"
    assert [is_news(state, BODY.encode()) for _ in range(2)] == [True, False]
    assert is_news(state, news(3, minute=1).encode())
    assert is_news(state, news(2, minute=2).encode())
    assert not is_news(state, news(3, minute=1).encode())  # sent again, after it was overtaken
    assert is_news(state, news(3, minute=3).encode())
