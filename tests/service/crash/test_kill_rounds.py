"""A few rounds of kill -9 under load, on both databases; the command runs hundreds."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from sqlalchemy import URL
from tests.service.crash import invariants
from tests.service.crash.kill_rounds import kill_rounds
from tests.service.crash.load import Acknowledged

pytestmark = pytest.mark.slow
ROUNDS = 3


def test_nothing_acknowledged_is_lost_on_sqlite(memory_path: Path) -> None:
    outcome = kill_rounds(memory_path, ROUNDS, 1, None)
    assert outcome.violations == []
    assert outcome.acknowledged_steps > 0
    assert outcome.leaked_files == 0


def test_nothing_acknowledged_is_lost_by_two_replicas_on_postgresql(
    memory_path: Path, postgresql_url: URL
) -> None:
    url = postgresql_url.render_as_string(hide_password=False)
    outcome = kill_rounds(memory_path, ROUNDS, 2, url)
    assert outcome.violations == []
    assert outcome.acknowledged_steps > 0


def test_a_step_that_is_gone_is_found() -> None:
    """The planted fault: what the service never received counts as lost."""

    def nothing(request: httpx.Request) -> httpx.Response:
        return httpx.Response(404)

    known = Acknowledged(steps={("r", 1): "0" * 64}, sharded={("r", 2)})
    client = httpx.Client(base_url="http://service", transport=httpx.MockTransport(nothing))
    assert len(list(invariants.lost_steps(client, known))) == 2
