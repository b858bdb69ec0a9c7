"""Reports as JSON and as a page."""

from __future__ import annotations

import json
import shutil
from typing import Any


def test_json_is_the_stored_file(running: Any) -> None:
    report = running.finished_report()
    answer = running.client.get(f"/v1/reports/{report}")
    stored = (running.data_dir / "reports" / report / "report.json").read_bytes()
    assert answer.content == stored
    assert json.loads(stored)["kind"] == "paired"
    assert f"</reports/{report}>" in answer.headers["link"]


def test_the_page_may_reach_nothing(running: Any) -> None:
    report = running.finished_report()
    page = running.client.get(f"/reports/{report}")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<html" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "http" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"


def test_files_that_are_gone_are_410(running: Any) -> None:
    report = running.finished_report()
    shutil.rmtree(running.data_dir / "reports" / report)
    for path in (f"/v1/reports/{report}", f"/reports/{report}"):
        answer = running.client.get(path)
        assert (answer.status_code, answer.json()["type"]) == (410, "/problems/report-gone")


def test_a_path_is_no_identifier(running: Any) -> None:
    running.finished_report()
    for path in ("..%2f..%2fdriftscope.db", "..", "%2e%2e/driftscope.db"):
        assert running.client.get(f"/v1/reports/{path}").status_code == 404
