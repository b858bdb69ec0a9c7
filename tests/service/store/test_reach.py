"""The condition on names of runs says what `Reach.has` says, in both databases."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import literal, select, union_all

from driftscope_service.auth import reach
from driftscope_service.auth.reach import EVERY_RUN, Reach
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.search import RunFilter, RunSearch
from driftscope_service.runs.store.steps import StepRepository
from driftscope_service.store.database import Database

#: Few letters, so that names often begin alike; of LIKE the wildcard.
NAMES = st.text("aAb_.-", max_size=6).map(lambda rest: f"a{rest}")


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(prefix=NAMES, names=st.lists(NAMES, min_size=1, max_size=8, unique=True))
def test_the_database_finds_what_begins_with_the_prefix(
    database: Database, prefix: str, names: list[str]
) -> None:
    table = union_all(*(select(literal(name).label("name")) for name in names)).subquery()
    for one in (Reach(prefix), EVERY_RUN):
        with database.read() as connection:
            found = connection.execute(select(table.c.name).where(one.visible(table.c.name)))
            assert {name for (name,) in found} == {name for name in names if one.has(name)}


@pytest.fixture
def with_runs(database: Database) -> Database:
    with database.write() as connection:
        runs = RunRepository(connection)
        for name in ("team-a-1", "Team-a-2", "team-b-1"):
            runs.put(name, {"model": f"model of {name}"})
    return database


def test_what_is_out_of_reach_is_neither_found_nor_listed_nor_offered(with_runs: Database) -> None:
    with with_runs.read() as connection, reach.within(Reach("team-a-")):
        runs, search = RunRepository(connection), RunSearch(connection)
        assert runs.get("team-a-1") is not None
        assert runs.get("team-b-1") is None and runs.get("Team-a-2") is None
        assert [run.name for run in runs.page(9)] == ["team-a-1"]
        assert [run.name for run in search.page(RunFilter(), "name", 9)] == ["team-a-1"]
        assert search.count(RunFilter()) == 1
        assert search.choices().models == ["model of team-a-1"]
        assert StepRepository(connection).get("team-b-1", 1) is None


def test_outside_of_a_request_every_run_is_there(with_runs: Database) -> None:
    with with_runs.read() as connection:
        with reach.within(Reach("team-a-")):
            pass
        assert RunSearch(connection).count(RunFilter()) == 3
