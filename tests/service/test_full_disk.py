"""Disks that are full or fail: at any write of the whole way of a step or a report, and for good.

A fault is injected into the n-th call of a function of the operating system, for every n until none
is reached any more: what was acknowledged before is there, nothing half is seen, no file leaks, and
the next push works.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from driftscope_service.runs.ingest import token_keeper
from driftscope_service.store import disk_reserve
from driftscope_service.store.dialects.sqlite import Sqlite

#: More than any of the ways below makes; reached only where a test would never end.
MOST_CALLS = 60


class Faults:
    """Lets the n-th of the calls fail that `os` makes for files below `folder`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = str(folder)
        self._lock = threading.Lock()
        self._left: int | None = None
        self._error = errno.EIO
        self.hit = False
        for name in ("rename", "open"):
            monkeypatch.setattr(os, name, self._failing(getattr(os, name)))
        monkeypatch.setattr(os, "fsync", self._failing(os.fsync, by_descriptor=True))
        monkeypatch.setattr(builtins, "open", self._failing(builtins.open, writing=True))
        monkeypatch.setattr(io, "open", self._failing(io.open, writing=True))

    @contextmanager
    def at(self, call: int, error: int) -> Iterator[None]:
        with self._lock:
            self._left, self._error, self.hit = call, error, False
        try:
            yield
        finally:
            with self._lock:
                self._left = None

    def _failing(
        self,
        real: Callable[..., Any],
        *,
        by_descriptor: bool = False,
        writing: bool = False,
    ) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **named: Any) -> Any:
            mode = rest[0] if rest else named.get("mode", "r")
            if not writing or set(str(mode)) & set("wxa+"):
                path = os.readlink(f"/proc/self/fd/{first}") if by_descriptor else first
                self._count(path)
            opened = real(first, *rest, **named)
            if writing and set(str(mode)) & set("wxa+") and not isinstance(first, int):
                self._count_writes(opened, first)
            return opened

        return call

    def _count_writes(self, file: Any, path: Any) -> None:
        real = file.write

        def write(content: Any) -> int:
            try:
                self._count(path)
            except OSError:
                real(memoryview(content).cast("B")[: memoryview(content).nbytes // 2])
                raise
            return int(real(content))

        file.write = write

    def _count(self, path: Any) -> None:
        if isinstance(path, int) or not str(path).startswith(self._folder):
            return
        with self._lock:
            if self._left is None:
                return
            self._left -= 1
            if self._left != 0:
                return
            self._left, self.hit = None, True
        raise OSError(self._error, os.strerror(self._error), str(path))


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(tmp_path / "data", monkeypatch)


def stored_files(pushing: Any) -> list[str]:
    """Except the reserve, the database and what belongs to the service itself."""
    left: list[str] = pushing.incoming() + pushing.files()
    return left


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_fault_at_every_write_of_a_push(
    run_service: Any,
    pushing_to: Any,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    error: int,
) -> None:
    monkeypatch.setattr(token_keeper.TokenKeeper, "announce", lambda _: None)
    with run_service() as running:
        pushing = pushing_to(running)
        assert pushing.push(pushing.body(), step=0).status_code == 201
        for call in range(1, MOST_CALLS):
            before = len(pushing.files())
            with faults.at(call, error):
                answer = pushing.push(pushing.body(seed=call), step=call)
            if not faults.hit:
                break
            expected = 507 if error == errno.ENOSPC else 503
            assert answer.status_code == expected, (call, answer.text)
            assert answer.headers["retry-after"]
            assert pushing.client.get(f"/v1/runs/r/steps/{call}").status_code == 404
            assert pushing.incoming() == [] and len(pushing.files()) == before
            assert pushing.push(pushing.body(seed=call), step=call).status_code == 201
        assert 3 < call < MOST_CALLS - 1
        assert pushing.push(pushing.body(), step=0).status_code == 200


def test_a_fault_at_every_write_of_shards_and_their_completion(
    run_service: Any, pushing_to: Any, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_keeper.TokenKeeper, "announce", lambda _: None)
    with run_service() as running:
        pushing = pushing_to(running)

        def shard(number: int) -> int:
            body = pushing.body(seed=number)
            answer = pushing.push(body, params={"shard": number, "shards": 2})
            return int(answer.status_code)

        assert shard(0) == 201
        for call in range(1, MOST_CALLS):
            with faults.at(call, errno.ENOSPC):
                status = shard(1)
            if not faults.hit:
                break
            assert status == 507
            assert len(pushing.files()) == 1 and pushing.incoming() == []
        assert 3 < call and status == 201
        with faults.at(1, errno.ENOSPC):
            pushing.client.post("/v1/runs/r/steps/1/complete")
        done = pushing.client.post("/v1/runs/r/steps/1/complete")
        assert done.status_code in (200, 201)
        assert done.json()["comparison"]["tokens"] == 36


def test_a_fault_at_every_write_of_a_conversion(
    run_service: Any,
    pushing_to: Any,
    faults: Faults,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_keeper.TokenKeeper, "start", lambda _: None)
    with run_service() as running:
        pushing = pushing_to(running)
        keeper = running.service.intake.keeper
        assert pushing.push(pushing.body()).status_code == 201
        (raw,) = pushing.files()
        for call in range(1, MOST_CALLS):
            with faults.at(call, errno.ENOSPC):
                try:
                    keeper._tidy()
                except OSError as error:
                    assert error.errno == errno.ENOSPC
            if not faults.hit:
                break
            assert pushing.files() == [raw] and pushing.incoming() == []
            assert pushing.client.get("/v1/runs/r/steps/1").json()["tokens_kept"]
        assert 3 < call < MOST_CALLS - 1
        (file,) = pushing.files()
        assert file.endswith(".parquet")


def test_a_fault_at_every_write_of_a_report(running: Any, faults: Faults, tmp_path: Path) -> None:
    files = running.service.report_files
    work = running.data_dir / "work"
    for call in range(1, MOST_CALLS):
        (work / "pairs").mkdir(parents=True, exist_ok=True)
        (work / "pairs" / "a").write_bytes(b"pair")
        with faults.at(call, errno.ENOSPC):
            try:
                stored = files.write({"grid": [{"pair_file": "pairs/a"}]}, work)
            except OSError as error:
                assert error.errno == errno.ENOSPC
        left = [path for path in running.data_dir.glob("reports/*/**/*") if path.is_file()]
        if not faults.hit:
            break
        assert left == []
    assert 3 < call < MOST_CALLS - 1
    assert len(left) == 2 and files.path(stored.path).is_file()


def test_a_full_sqlite_answers_507(running: Any, pushing_to: Any) -> None:
    pushing = pushing_to(running)
    assert pushing.push(pushing.body(), step=0).status_code == 201
    files = pushing.files
    with running.service.database.read() as connection:
        pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())

    def limit(self: Sqlite, connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sqlite, "_on_connect", limit)
        running.service.database.dispose()
        engine = running.service.database._engine

        def full(connection: Any, _: Any) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages}")

        event.listen(engine, "connect", full)
        answers = [pushing.push(pushing.body(seed=n), step=n) for n in range(1, 40)]
        refused = [answer for answer in answers if answer.status_code != 201]
        event.remove(engine, "connect", full)
    assert refused and {answer.status_code for answer in refused} == {507}
    assert refused[0].json()["detail"] == "the disk of the database is full"
    running.service.database.dispose()
    stored = sum(answer.status_code == 201 for answer in answers) + 1
    assert len(files()) <= stored and pushing.incoming() == []
    assert pushing.push(pushing.body(seed=99), step=99).status_code == 201


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_service_starts_for_reading_on_a_full_disk(
    small_disk: Path, run_service: Any, pushing_to: Any
) -> None:
    data_dir = small_disk / "data"
    with run_service(data_dir=data_dir, min_free_disk_bytes=0) as running:
        pushing = pushing_to(running)
        stored = pushing.push(pushing.body())
        assert stored.status_code == 201
    assert (data_dir / disk_reserve.NAME).stat().st_size == disk_reserve.RESERVE_BYTES
    (data_dir / "steps" / "lost+found").mkdir()
    with (small_disk / "other").open("wb") as file, pytest.raises(OSError):
        while True:
            file.write(bytes(2**16))
            file.flush()
    with run_service(data_dir=data_dir) as running:
        pushing = pushing_to(running)
        assert running.client.get("/v1/runs/r/steps/1").json() == stored.json()
        ready = running.client.get("/readyz")
        assert ready.status_code == 503 and "bytes free" in ready.json()["checks"]["disk"]
        assert pushing.push(pushing.body(seed=2), step=2).status_code == 507
        (small_disk / "other").unlink()
    with run_service(data_dir=data_dir, min_free_disk_bytes=0) as running:
        pushing = pushing_to(running)
        assert pushing.push(pushing.body(seed=2), step=2).status_code == 201
    assert (data_dir / disk_reserve.NAME).exists()
