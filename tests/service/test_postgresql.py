"""The whole service on a real PostgreSQL server: restarted, cut off, silenced, replaced."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import OperationalError

from driftscope_service.runs.store.steps import StepRepository
from driftscope_service.store import migrate
from driftscope_service.store.database import Database
from driftscope_service.store.dialects import bounded_connection, postgresql
from driftscope_service.store.dialects.bounded_connection import BoundedConnection
from driftscope_service.store.instances import InstanceRepository

from .tcp_proxy import Fault, TcpProxy, tcp_proxy


@pytest.fixture
def url(postgresql_url: URL) -> str:
    return postgresql_url.render_as_string(hide_password=False)


def test_steps_jobs_and_reports_outlive_the_service(
    run_service: Any, pushing_to: Callable[..., Any], url: str
) -> None:
    with run_service(database_url=url) as running:
        assert running.client.get("/readyz").status_code == 200
        pushing = pushing_to(running)
        for step in (1, 2):
            answer = pushing.push(pushing.same(step), step=step)
            assert answer.status_code == 201, answer.text
        report = running.finished_report()
    with run_service(database_url=url) as running:
        assert not (running.data_dir / "driftscope.db").exists()
        pushing = pushing_to(running)
        assert pushing.push(pushing.same(2), step=2).status_code == 200
        # Other content for a step: training was started again.
        assert pushing.push(pushing.same(3), step=2).status_code == 201
        assert running.client.get("/v1/runs/r").json()["attempt"] == 2
        assert len(running.client.get("/v1/runs/r/steps").json()["steps"]) == 2
        assert running.client.get(f"/v1/reports/{report}").status_code == 200
        assert "driftscope_jobs" in running.client.get("/metrics").text


@pytest.fixture
def empty_own(own_postgresql: Any) -> URL:
    """The module's own server, which its tests stop and start, without tables."""
    url: URL = own_postgresql.url
    database = Database(url)
    with database.write() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    database.dispose()
    return url


@pytest.fixture
def proxy(own_postgresql: Any, empty_own: URL) -> Iterator[TcpProxy]:
    with tcp_proxy(own_postgresql.port) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: TcpProxy, run_service: Any, empty_own: URL) -> Iterator[Any]:
    """A service whose connections to its database pass through a proxy."""
    url = empty_own.set(port=proxy.port).render_as_string(hide_password=False)
    with run_service(database_url=url) as running:
        yield running


class Pusher:
    """Pushes one step after the other until told to stop, each until it is taken."""

    def __init__(self, pushing: Any) -> None:
        self._pushing = pushing
        self.acknowledged: list[int] = []
        self.statuses: Counter[int] = Counter()
        self.without_retry_after = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        step = 1
        while not self._stopping.is_set():
            answer = self._pushing.push(self._pushing.same(step), run="pushed", step=step)
            self.statuses[answer.status_code] += 1
            if answer.status_code in (200, 201):
                self.acknowledged.append(step)
                step += 1
                continue
            self.without_retry_after += "retry-after" not in answer.headers
            time.sleep(0.05)


def check_after(running: Any, pusher: Pusher, eventually: Any) -> None:
    """It goes on by itself, and has every step that it acknowledged, with its tokens."""
    told = len(pusher.acknowledged)
    eventually(lambda: len(pusher.acknowledged) > told + 2)
    pusher.stop()
    assert set(pusher.statuses) <= {200, 201, 503}
    assert pusher.without_retry_after == 0
    stored = running.client.get("/v1/runs/pushed/steps", params={"limit": 1000}).json()["steps"]
    assert [one["step"] for one in stored] == pusher.acknowledged

    def converted() -> bool:
        with running.service.database.read() as connection:
            kept = StepRepository(connection).kept()
        assert {one.step for one in kept} == set(pusher.acknowledged)
        names = {one.tokens_file for one in kept}
        return None not in names and names <= {
            path.name for path in running.data_dir.glob("steps/*")
        }

    eventually(converted)
    ready = running.client.get("/readyz")
    assert ready.status_code == 200, ready.text
    eventually(lambda: running.wait(running.start("succeed"))["state"] == "succeeded")


@pytest.mark.slow
def test_a_restart_of_the_server_loses_nothing(
    through: Any, own_postgresql: Any, pushing_to: Any, eventually: Any
) -> None:
    pusher = Pusher(pushing_to(through))
    for mode in ("immediate", "fast"):
        told = len(pusher.acknowledged)
        eventually(lambda told=told: len(pusher.acknowledged) > told + 1)
        own_postgresql.stop(mode)
        away = pusher.statuses[503]
        eventually(lambda away=away: pusher.statuses[503] > away)
        own_postgresql.start()
    check_after(through, pusher, eventually)


@pytest.mark.slow
def test_ended_sessions_and_cut_connections_lose_nothing(
    through: Any, proxy: TcpProxy, pushing_to: Any, eventually: Any, own_postgresql: Any
) -> None:
    pusher = Pusher(pushing_to(through))
    administrator = Database(own_postgresql.url)

    def end_sessions() -> None:
        with administrator.read() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    for _ in range(3):
        for harm in (end_sessions, proxy.cut, proxy.half_close):
            told = len(pusher.acknowledged)
            harm()
            eventually(lambda told=told: len(pusher.acknowledged) > told + 1)
    administrator.dispose()
    check_after(through, pusher, eventually)


@pytest.mark.slow
def test_a_failover_to_another_server_loses_nothing(
    through: Any, proxy: TcpProxy, own_postgresql: Any, pushing_to: Any, eventually: Any
) -> None:
    pusher = Pusher(pushing_to(through))
    eventually(lambda: len(pusher.acknowledged) > 2)
    proxy.fault = Fault.REFUSE
    own_postgresql.stop("fast")
    standby = type(own_postgresql)()
    try:
        own_postgresql.copy_to(standby)
        standby.start()
        proxy.to_port, proxy.fault = standby.port, Fault.SLOW
        eventually(lambda: bool(pusher.statuses[503]))
        told = len(pusher.acknowledged)
        eventually(lambda: len(pusher.acknowledged) > told)
        proxy.fault = Fault.NONE
        check_after(through, pusher, eventually)
    finally:
        proxy.to_port = own_postgresql.port
        own_postgresql.start()
        proxy.cut()
        standby.stop()
        standby.remove()


def test_a_server_that_says_nothing_gives_503(
    through: Any, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(bounded_connection, "ANSWER_WITHIN_S", 0.5)
    proxy.fault = Fault.SILENT
    answer = through.client.get("/v1/runs")
    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/storage-unavailable"
    assert "retry-after" in answer.headers
    assert through.client.get("/healthz").status_code == 200
    assert through.client.get("/readyz").status_code == 503
    proxy.fault = Fault.NONE
    proxy.cut()
    eventually(lambda: through.client.get("/readyz").status_code == 200)
    assert through.client.get("/v1/runs").status_code == 200


def test_a_commit_that_nobody_heard_of_keeps_its_file(
    through: Any, pushing_to: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """The server committed, the answer was lost: the row names the file, and it must be there."""
    pushing = pushing_to(through)
    commit = BoundedConnection.commit

    def lose_the_answer(connection: Any) -> None:
        commit(connection)
        connection.pgconn.finish()
        raise psycopg.OperationalError("consuming input failed")

    with monkeypatch.context() as patch:
        patch.setattr(BoundedConnection, "commit", lose_the_answer)
        assert pushing.push(pushing.same(1), run="lost", step=1).status_code == 503
    assert pushing.push(pushing.same(1), run="lost", step=1).status_code == 200

    def converted() -> bool:
        with through.service.database.read() as connection:
            (kept,) = StepRepository(connection).kept()
        return kept.tokens_file is not None and pushing.files() == [kept.tokens_file]

    eventually(converted)


def test_a_lock_of_a_process_that_stands_still_is_given_back(
    own_postgresql: Any, empty_own: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "IDLE_TRANSACTION_MS", 200)
    standing, other = Database(empty_own), Database(empty_own)
    with pytest.raises(OperationalError):
        with standing.write() as connection:
            with other.write():  # it waits for the lock, and gets it
                pass
            connection.exec_driver_sql("SELECT 1")
    standing.dispose()
    other.dispose()


def test_a_migration_waits_for_nobody_and_is_refused_while_a_service_runs(
    empty_own: URL, run_service: Any
) -> None:
    migrate.upgrade(empty_own)
    database = Database(empty_own)
    with database.write() as connection:
        InstanceRepository(connection).add("instance_1", host="h", pid=7, version="1.0")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0013'")
    with pytest.raises(migrate.MigrationError, match=r"process 7 on h with version 1\.0"):
        migrate.upgrade(empty_own)
    with database.read() as connection:
        assert migrate.current_revision(connection) == "0013"
    database.dispose()


def test_a_migration_is_refused_while_a_service_of_before_the_instances_runs(
    empty_own: URL,
) -> None:
    migrate.upgrade(empty_own, "0013")
    database = Database(empty_own)
    with database.read() as older:
        older.exec_driver_sql(f"SELECT pg_advisory_lock({postgresql.OLDER_SERVICE_LOCK})")
        with pytest.raises(migrate.MigrationError, match="before the table of instances"):
            migrate.upgrade(empty_own)
        older.invalidate()
    migrate.upgrade(empty_own)
    database.dispose()
