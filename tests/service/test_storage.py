"""A service on a shared folder and on a bucket; the storage of another database is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftscope_service.settings import Settings
from driftscope_service.store import disk_reserve
from driftscope_service.store.identity import StorageMismatch
from driftscope_service.store.storage.base import our_files
from driftscope_service.store.storage.opening import CACHE


@pytest.fixture(params=["file", "s3"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3_url"))
    return f"file://{tmp_path}/shared"


def converted(running: Any) -> bool:
    return {Path(file.name).suffix for file in running.service.storage.files("steps")} == {
        ".parquet"
    }


def test_steps_and_reports_lie_in_the_storage(
    run_service: Any,
    pushing_to: Callable[..., Any],
    eventually: Callable[[Callable[[], bool]], None],
    storage_url: str,
) -> None:
    with run_service(storage_url=storage_url) as running:
        pushing = pushing_to(running)
        answer = pushing.push(pushing.body())
        assert answer.status_code == 201, answer.text
        for shard in (0, 1):
            body = pushing.body(seed=shard)
            pushed = pushing.push(body, step=2, params={"shard": shard, "shards": 2})
            assert pushed.status_code == 201, pushed.text
        assert pushing.client.post("/v1/runs/r/steps/2/complete").status_code == 201
        report = running.finished_report()
        eventually(lambda: converted(running))
        assert not list(running.data_dir.glob("steps/*"))
        assert not list(running.data_dir.glob("reports/*"))
        assert pushing.incoming() == []
        assert running.client.get("/readyz").json()["checks"]["storage"] == "ok"
    for path in (running.data_dir / CACHE).glob("*"):
        path.unlink()  # another machine has none of it
    with run_service(storage_url=storage_url) as running:
        assert running.client.get(f"/v1/reports/{report}").status_code == 200
        page = running.client.get("/runs/r/steps/1")
        assert page.status_code == 200 and "damaged" not in page.text
        pushing = pushing_to(running)
        assert pushing.push(pushing.body()).status_code == 200
        assert running.client.delete("/v1/runs/r").status_code in (200, 204)
        assert running.client.delete(f"/v1/reports/{report}").status_code in (200, 204)
        assert list(our_files(running.service.storage)) == []


def test_a_bucket_that_goes_away(
    run_service: Any, pushing_to: Callable[..., Any], s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_service(storage_url=s3_url) as running:
        pushing = pushing_to(running)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        storage = running.service.storage.storage
        storage._opened = None  # as a connection that breaks
        answer = pushing.push(pushing.body())
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/storage-unavailable"
        assert pushing.nothing_left()
        ready = running.client.get("/readyz").json()
        assert "does not answer" in ready["checks"]["storage"]
        monkeypatch.undo()


def test_another_database_is_refused_and_removes_nothing(
    run_service: Any, pushing_to: Callable[..., Any], tmp_path: Path
) -> None:
    with run_service() as running:
        pushing = pushing_to(running)
        assert pushing.push(pushing.body()).status_code == 201
    data_dir = running.data_dir
    kept = sorted(path.name for path in data_dir.glob("steps/*"))
    database = data_dir / "driftscope.db"
    database.rename(tmp_path / "ours.db")
    with pytest.raises(StorageMismatch, match="belongs to another database"):
        with run_service():
            pass
    assert sorted(path.name for path in data_dir.glob("steps/*")) == kept != []
    (tmp_path / "ours.db").replace(database)
    for left in data_dir.glob("driftscope.db-*"):
        left.unlink()
    with run_service() as running:
        assert running.client.get("/v1/runs/r/steps/1").json()["tokens_kept"]


def test_the_settings_refuse_credentials_in_the_url(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(ValueError, match="AWS_") as error:
        make_settings(storage_url="s3://key:hush@bucket/prefix")
    assert "s3://BUCKET/PREFIX" in str(error.value)


def test_a_reserve_is_taken_once_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_reserve.release_if_full(tmp_path)  # there is none
    disk_reserve.take(tmp_path)
    disk_reserve.take(tmp_path)
    reserve = tmp_path / disk_reserve.NAME
    assert reserve.stat().st_size == disk_reserve.RESERVE_BYTES
    disk_reserve.release_if_full(tmp_path)
    assert reserve.exists()
    monkeypatch.setattr(disk_reserve, "RESERVE_BYTES", 2**62)
    disk_reserve.release_if_full(tmp_path)
    assert not reserve.exists()
