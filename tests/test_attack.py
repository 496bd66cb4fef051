"""A real server under attack, with small counts; ``tests.benchmarks.attack`` has the large ones, and the times."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from serving.connections import RECEIVE_SECONDS
from tests.benchmarks.attack import crowd, end_under_load, flood, mixed, overload, slow_clients
from tests.hammering import serve_models, square_form
from tests.served import write_model

pytestmark = pytest.mark.slow


def test_a_server_under_attack_goes_on_and_ends_well(tmp_path: Path) -> None:
    form = square_form(128, 32)
    with serve_models(write_model(tmp_path / "model")) as server:
        slow = slow_clients(server, form, sockets=40, seconds=2)
        assert slow.left == 0 and len(slow.closed) >= 40
        assert max(slow.closed) < RECEIVE_SECONDS + 5  # on a busy machine
        assert not slow.before.other() and not slow.during.other()  # honest clients are served all the while

        for many in (partial(crowd, server.url, form, 20, 2), partial(flood, server.url, form, 1000, 0.5)):
            busy = overload(server, form, many, seconds=2)
            assert busy.during.statuses[200]
            assert set(busy.during.other()) == {429}  # sheds, and breaks nothing
            assert busy.recovered < float("inf")

        answers, (first, last) = mixed(server, requests=400)
        assert set(answers.statuses) <= {200, 400, 413, 415, 422} and sum(answers.statuses.values()) == 400
        assert last.files <= first.files + 4 and last.threads <= first.threads + 8
        assert last.megabytes < first.megabytes + 50

        ended = end_under_load(server, form, clients=2, after=1)  # as many as one core lets in
        assert ended.in_flight.statuses[200] and not ended.in_flight.other()
        assert ended.seconds < 30
