"""Several services on one PostgreSQL: the same step to both, shards that meet, one of each at a
time."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, select

from driftscope_service.runs.ingest import token_keeper
from driftscope_service.schedule import scheduler
from driftscope_service.service import DataDirError, open_service
from driftscope_service.store import instances as instances_module
from driftscope_service.store import migrate
from driftscope_service.store.database import Database
from driftscope_service.store.instances import InstanceRepository, OtherVersionRuns, Presence
from driftscope_service.store.leases import LeaseRepository
from driftscope_service.store.tables import instances, steps

from ..service_process import service_process

ROUNDS = 6
ROOT = Path(__file__).parents[2]


@pytest.fixture
def two(two_replicas: list[Any]) -> list[Any]:
    return two_replicas


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Each in a thread of its own, begun at the same moment."""
    barrier, answers = threading.Barrier(len(calls)), [None] * len(calls)

    def run(index: int) -> None:
        barrier.wait()
        answers[index] = calls[index]()

    threads = [threading.Thread(target=run, args=[index]) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def named_files(running: Any) -> set[str]:
    with running.service.database.read() as connection:
        rows = connection.execute(select(steps.c.raw_files, steps.c.tokens_file)).all()
    found = {one["file"] for raw, _ in rows for one in raw or ()}
    return found | {tokens for _, tokens in rows if tokens is not None}


def settled(pushing: Any, running: Any) -> bool:
    """Every file has its row: of two uploads of the same step one is gone."""
    return set(pushing.files()) == named_files(running)


def test_the_same_step_to_both_is_stored_once(
    two: list[Any], pushing_to: Any, eventually: Any
) -> None:
    first, second = (pushing_to(running) for running in two)
    for step in range(ROUNDS):
        body = first.same(step)
        answers = at_once(
            partial(first.push, body, run="same", step=step),
            partial(second.push, body, run="same", step=step),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 201]
        assert answers[0].json()["comparison"] == answers[1].json()["comparison"]
    run = two[1].client.get("/v1/runs/same").json()
    assert (run["steps"], run["attempt"]) == (ROUNDS, 1)
    eventually(lambda: settled(first, two[0]))


def test_other_bytes_to_both_are_a_second_attempt_or_a_conflict(
    two: list[Any], pushing_to: Any, eventually: Any
) -> None:
    first, second = (pushing_to(running) for running in two)
    answers = at_once(
        lambda: first.push(first.same(1), run="other", step=1),
        lambda: second.push(first.same(2), run="other", step=1),
    )
    assert [answer.status_code for answer in answers] == [201, 201]
    assert two[0].client.get("/v1/runs/other").json()["attempt"] == 2
    opened = two[0].client.post("/v1/runs/named/attempts", json={"id": "a"})
    assert opened.status_code == 201
    named = {"run": "named", "step": 1, "params": {"attempt": "a"}}
    answers = at_once(
        lambda: first.push(first.same(1), **named), lambda: second.push(first.same(2), **named)
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    run = two[1].client.get("/v1/runs/named").json()
    assert (run["steps"], run["refused_steps"]) == (1, 1)
    eventually(lambda: settled(first, two[0]))


def test_shards_reach_either_and_both_complete(
    two: list[Any], pushing_to: Any, eventually: Any
) -> None:
    pushings = [pushing_to(running) for running in two]
    for step in range(ROUNDS):
        bodies = [pushings[0].same(10 * step + shard) for shard in range(2)]

        def push(at: int, shard: int, step: int = step, bodies: Any = bodies) -> Any:
            options = {"shard": shard, "shards": 2}
            return pushings[at].push(bodies[shard], run="shards", step=step, params=options)

        answers = at_once(lambda: push(0, 0), lambda: push(1, 1), lambda: push(1, 0))
        assert sorted(answer.status_code for answer in answers) == [200, 201, 201]
        path = f"/v1/runs/shards/steps/{step}/complete"
        answers = at_once(*(partial(running.client.post, path) for running in two))
        assert sorted(answer.status_code for answer in answers) == [200, 201]
    assert two[0].client.get("/v1/runs/shards").json()["steps"] == ROUNDS
    eventually(lambda: settled(pushings[0], two[0]))


def test_a_run_deleted_while_the_other_pushes_is_whole_or_gone(
    two: list[Any], pushing_to: Any, eventually: Any
) -> None:
    first, second = (pushing_to(running) for running in two)
    assert first.push(first.same(0), run="deleted", step=0).status_code == 201
    for step in range(1, ROUNDS):
        answers = at_once(
            partial(second.push, first.same(step), run="deleted", step=step),
            lambda: two[0].client.delete("/v1/runs/deleted"),
        )
        assert answers[0].status_code == 201
        assert answers[1].status_code in (200, 204, 404), answers[1].text
        run = two[1].client.get("/v1/runs/deleted")
        if run.status_code == 200:
            listed = two[0].client.get("/v1/runs/deleted/steps").json()["steps"]
            assert run.json()["steps"] == len(listed) == 1
    eventually(lambda: settled(first, two[0]))


def test_deleted_shards_are_not_completed(two: list[Any], pushing_to: Any) -> None:
    first, second = (pushing_to(running) for running in two)
    for step in range(ROUNDS):
        one = {"run": "unsharded", "step": step, "params": {"shard": 0, "shards": 1}}
        assert first.push(first.same(step), **one).status_code == 201
        path = f"/v1/runs/unsharded/steps/{step}"
        completed, deleted = at_once(
            partial(two[0].client.post, f"{path}/complete"),
            partial(two[1].client.delete, path),
        )
        assert completed.status_code in (201, 404), completed.text
        assert deleted.status_code < 300, deleted.text
    assert two[0].client.get("/v1/runs/unsharded").json()["steps"] in range(ROUNDS)
    assert second.push(first.same(9), run="unsharded", step=99).status_code == 201


def test_both_tell_the_same_of_what_they_share(two: list[Any], pushing_to: Any) -> None:
    pushing = pushing_to(two[0])
    assert pushing.push(pushing.body(), run="shown", step=1).status_code == 201
    pages = [running.client.get("/metrics/shared").text for running in two]
    shown = [
        [line for line in page.splitlines() if 'run="shown"' in line or "_instances " in line]
        for page in pages
    ]
    assert shown[0] == shown[1]
    assert "driftscope_instances 2.0" in shown[0]
    # What it counted itself is on its own page alone.
    own = [running.client.get("/metrics/process").text for running in two]
    assert all("driftscope_ingest_requests_total" in page for page in own)
    assert not any("driftscope_ingest" in page for page in pages)


def test_each_is_in_the_table_until_it_ends(run_replicas: Any, postgresql_url: URL) -> None:
    with run_replicas(postgresql_url) as (first, second):
        ids = {running.service.presence.id for running in (first, second)}
        with first.service.database.read() as connection:
            alive = InstanceRepository(connection).alive()
        assert {one.id for one in alive} == ids
        assert not first.service.presence.alone
    database = Database(postgresql_url)
    with database.read() as connection:
        assert InstanceRepository(connection).alive() == []
        stopped = connection.execute(select(instances.c.stopped_at)).scalars().all()
    database.dispose()
    assert len(stopped) == 2 and None not in stopped


def test_a_data_folder_has_one_service(make_settings: Any, postgresql_url: URL) -> None:
    settings = make_settings(database_url=postgresql_url.render_as_string(hide_password=False))
    with open_service(settings):
        with pytest.raises(DataDirError, match="another driftscope service uses"):
            with open_service(settings):
                pass


def test_another_version_is_refused_while_one_runs(
    make_settings: Any, postgresql_url: URL, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql_url.render_as_string(hide_password=False)
    other = make_settings(database_url=url, data_dir=tmp_path / "other")
    with open_service(make_settings(database_url=url)):
        monkeypatch.setattr(instances_module, "version", lambda _: "0.0.1")
        with pytest.raises(OtherVersionRuns, match=r"another version .* is version 0\.0\.1"):
            with open_service(other):
                pass
    with open_service(other):  # nobody is left
        pass


def test_one_at_a_time_has_the_schedules_and_the_tokens(two: list[Any], eventually: Any) -> None:
    ids = {running.service.presence.id for running in two}

    def owners() -> list[str | None]:
        with two[0].service.database.read() as connection:
            leases = [LeaseRepository(connection).get(name) for name in ("scheduler", "tokens")]
        return [None if lease is None else lease.owner for lease in leases]

    eventually(lambda: None not in owners())
    assert set(owners()) <= ids


#: `driftscope serve` whose leases are short, so that a test need not wait for half a minute.
HASTY = """
from driftscope_service.runs.ingest import token_keeper
from driftscope_service.schedule import scheduler
scheduler.LEASE_S, scheduler.TICK_S = 2.0, 0.2
token_keeper.LEASE_S, token_keeper.IDLE_POLL_S = 2.0, 0.2
from driftscope_service.cli.main import main
main()
"""


@pytest.mark.slow
def test_another_takes_over_from_one_that_was_killed(
    run_service: Any,
    postgresql_url: URL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Any,
) -> None:
    url = postgresql_url.render_as_string(hide_password=False)
    monkeypatch.setattr(scheduler, "TICK_S", 0.2)
    monkeypatch.setattr(token_keeper, "IDLE_POLL_S", 0.2)
    command = ["serve", "--port", "0", "--data-dir", str(tmp_path / "killed")]
    roots = os.pathsep.join(str(ROOT / root) for root in ("service", "probes", "kernels"))
    environment = {**os.environ, "PYTHONPATH": roots, "DRIFTSCOPE_DATABASE_URL": url}
    migrate.upgrade(postgresql_url)
    database = Database(postgresql_url)

    def owners() -> set[str | None]:
        with database.read() as connection:
            leases = [LeaseRepository(connection).get(name) for name in ("scheduler", "tokens")]
        return {None if lease is None else lease.owner for lease in leases}

    with service_process([sys.executable, "-c", HASTY, *command], environment) as killed:
        killed.wait_for(re.compile("startup complete"))
        eventually(lambda: None not in owners())
        before = owners()
        with run_service(database_url=url, data_dir=tmp_path / "other") as running:
            assert running.service.presence.id not in owners() == before
            killed.process.send_signal(signal.SIGKILL)
            eventually(lambda: owners() == {running.service.presence.id})
    database.dispose()


def test_one_that_went_silent_is_dead_and_comes_back(
    postgresql_url: URL, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    migrate.upgrade(postgresql_url)
    database = Database(postgresql_url)
    monkeypatch.setattr(instances_module, "HEARTBEAT_S", 0.2)
    silent, other = Presence(database), Presence(database)
    silent.join()
    other.join()
    with monkeypatch.context() as patch:
        patch.setattr(InstanceRepository.alive, "__defaults__", (0.0,))
        assert other.alone
    eventually(lambda: not other.alone)
    silent.leave()
    silent.leave()
    assert other.alone
    other.leave()
    database.dispose()
