"""Leases: one owner at a time, and a fence that never falls."""

from __future__ import annotations

import time

from driftscope_service.store.database import Database
from driftscope_service.store.leases import LeaseRepository, Turn


def test_one_owner_at_a_time(database: Database) -> None:
    with database.write() as connection:
        leases = LeaseRepository(connection)
        first = leases.take("scheduler", "instance_a", 60)
        assert first is not None and first.fence == 1
        assert leases.take("scheduler", "instance_b", 60) is None
        renewed = leases.take("scheduler", "instance_a", 60)
        assert renewed is not None and renewed.fence == 1
        assert renewed.expires_at >= first.expires_at


def test_a_turn_passes_from_a_killed_service_at_once_where_there_is_only_one(
    database: Database,
) -> None:
    killed, next_one = (Turn(database, "tokens", name, 60) for name in ("a", "b"))
    assert killed.taken()
    assert next_one.taken() is not database.dialect.many_services
    with database.read() as connection:
        assert next_one.still_mine(connection) is not database.dialect.many_services


def test_an_expired_or_released_lease_goes_to_another_owner_with_a_higher_fence(
    database: Database,
) -> None:
    with database.write() as connection:
        leases = LeaseRepository(connection)
        leases.take("scheduler", "instance_a", 0.01)
        time.sleep(0.02)
        second = leases.take("scheduler", "instance_b", 60)
        assert second is not None and second.fence == 2
        leases.release("scheduler", "instance_a")  # no longer its own
        assert leases.take("scheduler", "instance_a", 60) is None
        leases.release("scheduler", "instance_b")
        third = leases.take("scheduler", "instance_a", 60)
        assert third is not None and third.fence == 3
