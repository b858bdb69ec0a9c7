"""Malformed bodies, some hundreds; the command sends thousands."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.service.contract.malformed import attacked, broken, valid_bodies

BODIES = 300


@pytest.mark.slow
def test_malformed_bodies_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    outcome = attacked(tmp_path, BODIES)
    # Memory is the command's to judge: three hundred bodies are still warming the allocator up.
    assert replace(outcome, rss_mib_end=outcome.rss_mib_early).sound, outcome
    assert sum(outcome.by_status.values()) == BODIES
    assert {"201", "422"} <= set(outcome.by_status)


def test_bodies_are_really_broken() -> None:
    chance = random.Random(0)
    for body in valid_bodies().values():
        assert sum(broken(body, chance) != body for _ in range(100)) > 90
