"""The small parts of pages: headers, static files, data of plots, lines, times, addresses."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import pytest

from driftscope_service.pages import words as moment
from driftscope_service.pages.navigation import with_query
from driftscope_service.pages.report_template import bundle
from driftscope_service.pages.response import CONTENT_SECURITY_POLICY
from driftscope_service.pages.sparkline import sparkline
from driftscope_service.pages.static_files import static_files
from driftscope_service.runs.pages.drift_plot import downsample
from driftscope_service.runs.store.steps import MetricPoint

WEB = files("driftscope_service") / "pages"
#: As a state or a fact of the run, not as a choice of the filter.
FINISHED = re.compile(r'class="state[^"]*">finished<|<span>finished ')
THEMED = ("--page", "--surface", "--text", "--muted", "--accent", "--good", "--bad", "--series-1")


@pytest.fixture
def pushed(pushing: Any, running: Any) -> Any:
    for step in range(3):
        assert pushing.push(pushing.body(seed=step), run="r", step=step).status_code == 201
    return running.client


@pytest.mark.parametrize(
    "path", ["/runs", "/runs/r", "/runs/r/steps/1", "/runs/none", "/runs/r%20"]
)
def test_every_page_forbids_what_is_inline(path: str, pushed: Any) -> None:
    answer = pushed.get(path)
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", answer.text)


def test_a_page_of_an_error_has_its_status_and_words(pushed: Any) -> None:
    missing = pushed.get("/runs/nobody")
    assert missing.status_code == 404 and "There is no run" in missing.text
    wrong = pushed.get("/runs/r?metric=speed")
    assert wrong.status_code == 422 and "abs_diff_mean" in wrong.text
    assert pushed.get("/runs/r/steps/1?sequence=99").status_code == 422
    nowhere = pushed.get("/runs/r/steps/77")
    assert nowhere.status_code == 404
    assert "There is no complete step 77 of run &#39;r&#39;." in nowhere.text


def test_a_finished_run_says_so(pushed: Any) -> None:
    for path in ("/runs", "/runs/r"):
        assert not FINISHED.search(pushed.get(path).text)
    pushed.put("/v1/runs/r", json={"state": "finished"})
    for path in ("/runs", "/runs/r"):
        assert FINISHED.search(pushed.get(path).text)


def test_text_of_a_client_is_escaped(pushed: Any) -> None:
    evil = "<script>alert(1)</script>"
    assert pushed.put("/v1/runs/r", json={"model": evil, "labels": {evil: evil}}).status_code == 200
    for path in ("/runs", "/runs/r", "/runs/r/steps/1"):
        text = pushed.get(path).text
        assert evil not in text and "&lt;script&gt;" in text


def test_no_run_yet(running: Any) -> None:
    assert "No run has pushed a step yet" in running.client.get("/runs").text


def test_a_run_without_a_step(running: Any) -> None:
    running.client.put("/v1/runs/new", json={})
    assert "No step is complete" in running.client.get("/runs/new").text
    assert "no steps" in running.client.get("/runs").text


def test_tokens_that_are_gone(run_service: Any, pushing_to: Any, eventually: Any) -> None:
    with run_service(token_ring_steps=0) as running:
        pushing = pushing_to(running)
        pushing.push(pushing.same(), run="r", step=0)
        eventually(lambda: not pushing.files())
        text = running.client.get("/runs/r/steps/0").text
        assert "no longer kept" in text and "Every number" in text
        plot = running.client.get("/runs/r/steps/0/plots/density.json")
        assert plot.status_code == 404


def test_data_of_plots_as_json_and_csv(pushed: Any) -> None:
    for plot in ("drift",):
        found = pushed.get(f"/runs/r/plots/{plot}.json").json()
        assert found["columns"][0] == "first_step" and len(found["rows"]) == 3
    lines = pushed.get("/runs/r/plots/drift.csv?first=1").text.split("\r\n")
    assert lines[0].startswith("first_step,last_step") and len(lines) == 4
    for plot in ("histogram", "density", "position", "probability"):
        path = f"/runs/r/steps/1/plots/{plot}"
        rows = pushed.get(f"{path}.json").json()["rows"]
        csv = pushed.get(f"{path}.csv")
        assert len(csv.text.split("\r\n")) == len(rows) + 2
        assert csv.headers["content-disposition"] == f'attachment; filename="r-1-{plot}.csv"'
    assert pushed.get("/runs/r/steps/1/plots/other.json").status_code in (404, 422)


def test_static_files_are_those_of_the_package(running: Any) -> None:
    client = running.client
    style = client.get("/static/pages.css")
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    again = client.get("/static/pages.css", headers={"if-none-match": style.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    assert client.get("/static/vendor/htmx/htmx.min.js").headers["content-encoding"] == "gzip"
    plain = client.get("/static/pages.css", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.text == style.text
    for path in ("page.py", "../page.py", "%2e%2e/page.py", "vendor/CHECKSUMS", ""):
        assert client.get(f"/static/{path}").status_code == 404


def test_pages_load_only_what_is_served(pushed: Any) -> None:
    for path in ("/runs", "/runs/r", "/runs/r/steps/1"):
        for name in re.findall(r'(?:src|href)="/static/([^"]+)"', pushed.get(path).text):
            assert name in static_files()


def test_colours_stand_in_one_place() -> None:
    """A second definition would part the pages of the site from those that stand by themselves."""
    defining = [name for name, file in static_files().items() if re.search(rb"--\w+: #", file.body)]
    assert defining == ["theme.css"]
    theme = static_files()["theme.css"].body.decode()
    for name in THEMED:
        assert len(re.findall(rf"{name}: (#\w+);", theme)) == 2


def test_a_bundle_has_every_name_before_it_is_imported() -> None:
    text = bundle("report.js")
    assert not re.search(r"^(?:import|export) ", text, re.MULTILINE)
    held: dict[str, set[str]] = {}
    for scope in re.split(r"^(?=modules\[)", text, flags=re.MULTILINE)[1:]:
        for names, module in re.findall(
            r'^const \{(.+)\} = modules\["(.+)"\];', scope, re.MULTILINE
        ):
            assert {name.split(":")[0].strip() for name in names.split(",")} <= held[module]
        name = re.match(r'modules\["(.+?)"\]', scope)
        exported = re.search(r"^return \{(.*)\};\n\}\)\(\);", scope, re.MULTILINE)
        assert name is not None and exported is not None
        held[name[1]] = set(exported[1].replace(",", " ").split())
    assert {"plots.js", "plots/histogram.js", "plots/scatter.js", "report.js"} <= held.keys()


def test_a_spike_survives_any_grouping() -> None:
    values: list[float | None] = [1.0] * 999
    values[500] = 50.0
    values[3] = None
    points = [MetricPoint(step, value, False) for step, value in enumerate(values)]
    for buckets in (1, 7, 400, 2000):
        found = downsample(points, buckets)
        assert len(found) <= buckets
        assert max(one.high for one in found if one.high is not None) == 50.0
        assert sum(one.steps for one in found) == 999
        assert found[0].first_step == 0 and found[-1].last_step == 998


def test_a_line_is_within_its_frame_and_says_what_it_is() -> None:
    drawn = sparkline([1.0, None, 3.0, 2.0, float("nan"), 1e6, 1e7], 'a "number"')
    assert 'aria-label="a &#34;number&#34;"' in drawn
    for x, y in re.findall(r"([-\d.]+),([-\d.]+)", drawn):
        assert 0 <= float(x) <= 132 and 0 <= float(y) <= 28
    assert sparkline([None, 1.0], "x") == '<span class="muted">–</span>'
    assert "svg" in sparkline([2.0, 2.0], "x")


def test_times_and_addresses() -> None:
    now = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
    assert moment.ago(now - timedelta(seconds=5), now) == "just now"
    assert moment.ago(now - timedelta(minutes=1), now) == "1 minute ago"
    assert moment.ago(now - timedelta(days=3), now) == "3 days ago"
    assert moment.iso(now) == "2026-01-02T12:00:00Z"
    assert with_query("/runs", a=None, b=1, c="x y") == "/runs?b=1&c=x+y"
    assert with_query("/runs", a=None) == "/runs"
