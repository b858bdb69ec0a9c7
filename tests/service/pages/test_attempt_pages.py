"""Pages of a run that was started again: every attempt, its steps, and what was refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from playwright.sync_api import Page
from safetensors.numpy import save

HTML = {"accept": "text/html"}
STEPS = "/v1/runs/resumed/steps"


@pytest.fixture(scope="session")
def page_runs() -> ModuleType:
    import sys

    return sys.modules["page_runs"]


@pytest.fixture(scope="module")
def resumed(site: Any, page_runs: ModuleType) -> Any:
    """Steps 0 to 29, then 20 to 35 again: bad for four steps, then as before."""
    healthy, bad = page_runs.PageRun("resumed"), page_runs.PageRun("resumed", factor=8.0)
    again = page_runs.PageRun("again...")  # of another seed

    def push(run: Any, step: int, attempt: str) -> None:
        answer = site.client.post(
            f"{STEPS}/{step}/logprobs",
            params={"attempt": attempt},
            content=save(page_runs.step_tensors(run, step), page_runs.metadata("page-model")),
            headers={"content-type": page_runs.MEDIA_TYPE},
        )
        assert answer.status_code == 201, answer.text

    for attempt, resumed_from in (("first-job", None), ("second-job", 19)):
        opened = {"id": attempt, "resumed_from": resumed_from}
        site.client.post("/v1/runs/resumed/attempts", json=opened).raise_for_status()
        if attempt == "first-job":
            for step in range(30):
                push(healthy, step, attempt)
        else:
            for step in range(20, 36):
                push(bad if step < 24 else again, step, attempt)
    return site


def links(html: str) -> set[str]:
    return set(re.findall(r'href="(/runs/resumed[^"#?]*)', html))


def test_the_page_of_the_run_shows_every_attempt_and_what_the_resume_did(resumed: Any) -> None:
    html = resumed.html("/runs/resumed")
    assert "Started 2 times" in html and "attempt 2" in html
    assert "first-job" in html and "second-job" in html and "after step 19" in html
    assert "0 to 29 (30 steps, 10 not in the series any more)" in html
    assert "after the resume at step 20" in html
    assert {"/runs/resumed/attempts/1", "/runs/resumed/attempts/2"} <= links(html)
    # Each step of the series, and none of the older attempt's pages but its own.
    assert {f"/runs/resumed/steps/{step}" for step in range(6, 36)} <= links(html)
    assert not [one for one in links(html) if "attempts/1/" in one]


def test_an_older_attempt_is_a_page_of_its_own(resumed: Any) -> None:
    html = resumed.html("/runs/resumed/attempts/1")
    assert "What attempt 1 of 2 sent" in html and "In its place" in html
    assert "/runs/resumed/attempts/1/steps/29" in links(html)
    assert "/runs/resumed/attempts/1/steps/30" not in links(html)
    assert 'source="/runs/resumed/attempts/1/plots/drift.json' in html
    assert resumed.html("/runs/resumed", attempt=1) == html
    data = resumed.client.get("/runs/resumed/attempts/1/plots/drift.json").json()
    assert [row[0] for row in data["rows"]] == list(range(30))
    assert (data["page"], data["older"]) == ("/runs/resumed/attempts/1", [])
    series = resumed.client.get("/runs/resumed/plots/drift.json").json()
    assert [row[0] for row in series["rows"]] == list(range(36))
    (older,) = series["older"]
    assert (older["attempt"], [step for step, _ in older["points"]]) == (1, list(range(20, 30)))


def test_a_step_that_was_superseded_says_so(resumed: Any) -> None:
    old, new = (resumed.html("/runs/resumed/steps/25", attempt=one) for one in (1, 2))
    assert "attempt 2 took its place" in old and "/runs/resumed/steps/25" in links(old)
    assert "took its place" not in new
    assert {"/runs/resumed/attempts/1/steps/24", "/runs/resumed/attempts/1/steps/26"} <= links(old)
    assert resumed.html("/runs/resumed/attempts/1/steps/25") == old
    hashes = [re.search(r"SHA-256</th><td><code>(\w+)", html) for html in (old, new)]
    assert hashes[0] and hashes[1] and hashes[0][1] != hashes[1][1]
    of_series = resumed.html("/runs/resumed/steps/25")
    assert f"<code>{hashes[1][1]}" in of_series
    plot = resumed.client.get("/runs/resumed/attempts/1/steps/25/plots/evidence.json")
    assert plot.status_code in (200, 404)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/runs/resumed/attempts/3", 404),
        ("/runs/resumed?attempt=3", 404),
        ("/runs/resumed/attempts/3/steps/25", 404),
        ("/runs/resumed/attempts/2/steps/3", 404),
        ("/runs/resumed/attempts/x", 422),
        ("/runs/resumed/attempts/0", 422),
        ("/runs/resumed?attempt=x", 422),
        ("/runs/nobody/attempts/1", 404),
    ],
)
def test_what_is_not_there(resumed: Any, path: str, status: int) -> None:
    assert resumed.client.get(path, headers=HTML).status_code == status


def test_refused_steps_are_on_the_page_of_a_run_that_was_started_once(
    site: Any, page_runs: ModuleType
) -> None:
    run = page_runs.PageRun("refused")
    for body in (save(page_runs.step_tensors(run, 0), {}), b"no step"):
        site.client.post(
            "/v1/runs/refused/steps/0/logprobs",
            content=body,
            headers={"content-type": page_runs.MEDIA_TYPE},
        )
    html = site.html("/runs/refused")
    assert "Refused steps" in html and "1, the last one step 0:" in html
    assert "Started" not in html.split("<main", 1)[1].split("<table")[0]
    assert 'id="attempts"' not in site.html("/runs/healthy")


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/runs/resumed", "/runs/resumed/attempts/1",
                                  "/runs/resumed/attempts/1/steps/25"])  # fmt: skip
def test_its_pages_are_accessible_and_drawn(
    path: str, resumed: Any, look: Any, accessible: Callable[[Page], None]
) -> None:
    for width in (390, 1280):
        page = look(viewport={"width": width, "height": 900}).drawn(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        accessible(page)


@pytest.mark.slow
def test_the_plot_has_a_faint_line_of_what_the_first_attempt_had(resumed: Any, look: Any) -> None:
    page = look(viewport={"width": 1280, "height": 900}).drawn("/runs/resumed")
    series = page.evaluate(
        "echarts.getInstanceByDom(document.querySelector('#drift-plot .chart')).getOption().series"
        ".filter(one => one.name === 'attempt 1')"
        ".map(one => [one.data.length, one.lineStyle.opacity])"
    )
    assert [points for points, _ in series] == [10] and series[0][1] < 1
