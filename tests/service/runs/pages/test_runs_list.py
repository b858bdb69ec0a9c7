"""The list of runs: as many queries for many rows as for few, and what a row says."""

from __future__ import annotations

import importlib.util
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

ROOT = Path(__file__).parents[4]


@pytest.fixture
def many(running: Any) -> Any:
    """60 runs."""
    path = ROOT / "scripts" / "many_runs.py"
    spec = importlib.util.spec_from_file_location("many_runs", path)
    assert spec is not None and spec.loader is not None
    many_runs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(many_runs)
    with running.service.database.write() as connection:
        many_runs.add_runs(connection, count=60, of_steps=4)
    running.client.put("/v1/runs/run-0000", json={"pinned": True})
    return running


def names(html: str) -> list[str]:
    return re.findall(r"<strong>(run-\d+)</strong>", html)


CLOCKS = ("token-keeper", "metrics-drift", "retention", "webhook")


@pytest.mark.parametrize("path", ["/runs", "/v1/runs"])
def test_sixty_rows_ask_the_database_as_often_as_three(many: Any, path: str) -> None:
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        # The service's own clocks (jobs, tokens, retention) ask whenever they are due.
        if threading.current_thread().name in CLOCKS:
            return
        if any(f"FROM {table}" in statement for table in ("runs", "steps", "run_tags", "attempts")):
            asked.append(statement)

    engine = many.service.database._engine
    event.listen(engine, "before_cursor_execute", note)
    few = many.client.get(path, params={"limit": 3, "model": "Qwen3-8B"})
    asked_for_few = len(asked)
    all_of_it = many.client.get(path, params={"limit": 60})
    event.remove(engine, "before_cursor_execute", note)
    assert few.status_code == all_of_it.status_code == 200
    assert all_of_it.text.count("run-00") >= 60 > few.text.count("<strong>run-00")
    assert len(asked) - asked_for_few == asked_for_few < 25


def test_a_row_tells_states_apart(many: Any) -> None:
    for state in ("running", "resumed", "finished", "stale"):
        listed = many.client.get("/v1/runs", params={"limit": 60, "state": state}).json()
        html = many.client.get("/runs", params={"limit": 60, "state": state}).text
        assert names(html) == [run["run"] for run in listed["runs"]]
        assert len(names(html)) == listed["matches"] > 0
        words = set(re.findall(r'<span class="state \w+">(running|resumed|finished|stale)<', html))
        assert words == {state}


def test_a_row_is_held_against_the_baseline(many: Any) -> None:
    html = many.client.get("/runs", params={"model": "Qwen3-8B", "sort": "name"}).text
    assert names(html)[:2] == ["run-0000", "run-0001"]
    [first] = re.findall(r'href="/compare\?a=run-0000&amp;b=run-0001">([^<]*)</a>', html)
    assert re.fullmatch(r"mean \|Δ\| [\d.]+ times", first)
    assert "b=run-0000" not in html


def test_text_that_clients_sent_is_escaped(running: Any) -> None:
    sent = {"model": "<i>m</i>", "tags": ["<b>t</b>"], "note": "<script>n</script>"}
    running.client.put("/v1/runs/r", json=sent)
    for path in ("/runs", "/runs/r", "/runs?tag=<b>t</b>&text=<script>"):
        html = running.client.get(path).text
        for text in (sent["model"], sent["tags"][0], sent["note"]):
            assert str(text) not in html
    assert "&lt;script&gt;n" in running.client.get("/runs/r").text
