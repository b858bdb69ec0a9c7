"""/jobs and /jobs/{id}: every state in words, live progress, cancelling with no script too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from driftscope_service.jobs import page as job_page

HTML = {"accept": "text/html"}


def html(running: Any, path: str, status: int = 200) -> str:
    answer = running.client.get(path, headers=HTML)
    assert answer.status_code == status, answer.text
    return str(answer.text)


def test_without_a_job_the_page_says_how_to_start_one(running: Any) -> None:
    page = html(running, "/jobs")
    assert "No job has been started" in page
    assert "driftscope probe paired" in page
    assert "every 2s" not in page


def test_every_outcome_is_in_the_list(running: Any) -> None:
    report = running.finished_report()
    failed = running.start("refuse")
    running.wait(failed)
    asleep = running.start("sleep")
    running.wait(asleep, "running")
    waiting = running.start("succeed")
    page = html(running, "/jobs")
    assert f'href="/probes/{report}"' in page
    assert "the engine is out of order." in page
    for job in (asleep, waiting):
        assert f'action="/jobs/{job}/cancel"' in page
    assert "every 2s" in page
    only_failed = html(running, "/jobs?state=failed")
    assert failed in only_failed and asleep not in only_failed
    assert "No job is in this state" in html(running, "/jobs?state=cancelled")
    assert "every 2s" not in html(running, "/jobs?state=succeeded")
    assert "It starts after the job" not in html(running, f"/jobs/{waiting}")
    assert "It starts as soon as a slot is free." in html(running, f"/jobs/{waiting}")


def test_the_place_in_the_queue(running: Any) -> None:
    asleep = running.start("sleep")
    running.wait(asleep, "running")
    running.start("succeed"), running.start("succeed")
    last = running.start("succeed")
    assert "It starts after the 2 jobs before it." in html(running, f"/jobs/{last}")


def test_pages_of_the_list(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftscope_service.jobs.page.PAGE_SIZE", 2)
    names = [running.start("succeed") for _ in range(3)]
    for name in names:
        running.wait(name)
    first = html(running, "/jobs")
    assert names[0] not in first and names[2] in first
    earlier = re.search(r'href="(/jobs\?cursor=[^"]+)"', first)
    assert earlier is not None
    second = html(running, earlier.group(1))
    assert names[0] in second and names[2] not in second
    assert "Latest jobs" in second


def test_a_failed_job_says_what_to_do(running: Any) -> None:
    job = running.start("refuse")
    running.wait(job)
    page = html(running, f"/jobs/{job}")
    assert "It failed, and left no report." in page
    assert "<dd>the engine is out of order.</dd>" in page
    assert "<dd>repair it.</dd>" in page
    assert "EngineError" in page
    assert "quick probe: refuse" in page
    assert "/cancel" not in page


def test_a_finished_job_leads_to_its_report(running: Any) -> None:
    report = running.finished_report()
    job = running.client.get("/v1/jobs").json()["jobs"][0]["id"]
    page = html(running, f"/jobs/{job}")
    assert f'href="/probes/{report}"' in page
    assert "A quick probe says nothing." in page
    kernels = running.finished_kernels_report()
    assert f'href="/reports/{kernels}"' in html(running, "/jobs")


def test_a_night_that_was_handed_in_took_no_time_here(running: Any, reports: Any) -> None:
    answer = running.client.post("/v1/nightly", json=reports.night(3).to_dict())
    assert answer.status_code == 201, answer.text
    page = html(running, "/jobs")
    assert "handed in" in page and "0.00 s" not in page
    job = running.client.get("/v1/jobs").json()["jobs"][0]["id"]
    assert "Its work was done elsewhere" in html(running, f"/jobs/{job}")


def test_the_end_of_a_long_log(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_page, "LOG_LINES", 1)
    running.finished_report()
    job = running.client.get("/v1/jobs").json()["jobs"][0]["id"]
    page = html(running, f"/jobs/{job}")
    assert "The end of it." in page
    # The log of the probe is the older one.
    assert "quick probe: succeed" not in page


def test_markup_in_a_log_is_text(running: Any) -> None:
    job = running.start("<script>alert(1)</script>")
    running.wait(job)
    page = html(running, f"/jobs/{job}")
    assert "&lt;script&gt;" in page and "<script>alert" not in page


def test_cancelling_goes_back_to_the_job(running: Any) -> None:
    job = running.start("sleep")
    running.wait(job, "running")
    answer = running.client.post(f"/jobs/{job}/cancel", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job}")
    assert running.wait(job)["state"] == "cancelled"
    assert "It was cancelled after" in html(running, f"/jobs/{job}")


def test_what_is_over_cannot_be_cancelled(running: Any) -> None:
    running.finished_report()
    job = running.client.get("/v1/jobs").json()["jobs"][0]["id"]
    answer = running.client.post(f"/jobs/{job}/cancel", headers=HTML, follow_redirects=False)
    assert answer.status_code == 409
    assert "<h1>" in answer.text and "succeeded" in answer.text


def test_a_job_that_is_none(running: Any) -> None:
    assert "no job" in html(running, "/jobs/job_none", 404)
    assert running.client.post("/jobs/job_none/cancel").status_code == 404
    html(running, "/jobs?cursor=nonsense", 422)
    html(running, "/jobs?state=asleep", 422)


def start(site: Any, act: str) -> str:
    body = {
        "model": "tiny-random-llama",
        "prompts": [act],
        "engine_dtypes": ["bf16"],
        "trainer_dtypes": ["bf16"],
    }
    answer = site.client.post("/v1/probes/paired", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@pytest.fixture
def sleeping(site: Any) -> Iterator[str]:
    """A job that runs until it is cancelled."""
    job = start(site, "sleep")
    yield job
    site.client.post(f"/v1/jobs/{job}/cancel")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    scheme: Any, sleeping: str, site: Any, look: Any, accessible: Callable[[Page], None]
) -> None:
    failing = start(site, "refuse")
    page = look(color_scheme=scheme).at("/jobs")
    accessible(page)
    page.goto(f"{site.url}/jobs/{sleeping}")
    accessible(page)
    site.client.post(f"/v1/jobs/{sleeping}/cancel")
    page.goto(f"{site.url}/jobs/{failing}")
    expect(page.locator(".sentence")).to_contain_text("failed", timeout=30_000)
    accessible(page)


@pytest.mark.slow
def test_the_list_follows_the_job_and_the_focus_stays(sleeping: str, site: Any, look: Any) -> None:
    page = look().at("/jobs")
    row = page.locator(f"#{sleeping}")
    expect(row).to_contain_text("25 %", timeout=30_000)
    button = row.get_by_role("button", name="Cancel")
    button.focus()
    with page.expect_response(re.compile(r"/jobs$")):
        pass
    page.wait_for_timeout(100)
    expect(button).to_be_focused()
    button.click()
    expect(page).to_have_url(re.compile(f"/jobs/{sleeping}$"))
    expect(page.locator(".sentence")).to_contain_text("cancelled after", timeout=30_000)
    # What is over is not asked for again.
    expect(page.locator("[hx-trigger]")).to_have_count(0)


@pytest.mark.slow
def test_a_service_that_is_away_and_comes_back(sleeping: str, look: Any) -> None:
    looked = look(may_fail=True)
    page = looked.at("/jobs")
    expect(page.locator(f"#{sleeping}")).to_contain_text("25 %", timeout=30_000)
    page.route("**/jobs", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached", timeout=10_000)
    # What was there stays.
    expect(page.locator(f"#{sleeping}")).to_be_visible()
    page.unroute("**/jobs")
    expect(page.get_by_role("alert")).to_have_count(0, timeout=10_000)


@pytest.mark.slow
def test_cancelling_without_a_script(sleeping: str, site: Any, look: Any) -> None:
    page = look(java_script_enabled=False).at("/jobs")
    expect(page.get_by_role("link", name="Look again")).to_have_count(1)
    page.locator(f"#{sleeping}").get_by_role("button", name="Cancel").click()
    expect(page).to_have_url(re.compile(f"/jobs/{sleeping}$"))


@pytest.mark.slow
def test_nothing_scrolls_sideways_on_a_phone(sleeping: str, look: Any) -> None:
    looked = look(viewport={"width": 390, "height": 800})
    for path in ("/jobs", f"/jobs/{sleeping}"):
        page = looked.at(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
