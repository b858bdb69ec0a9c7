"""The whole service on a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from driftscope_service.service import DataDirError, open_service


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


def test_a_database_has_one_service(make_settings: Any, url: str, tmp_path: Path) -> None:
    other = make_settings(database_url=url, data_dir=tmp_path / "other")
    with open_service(make_settings(database_url=url)):
        with pytest.raises(DataDirError, match="another driftscope service uses postgresql://"):
            with open_service(other):
                pass
    with open_service(other):
        pass
