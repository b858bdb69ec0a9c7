"""The list of 500 runs in Chromium, over a real service: found, marked and deleted by its pages."""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from driftscope_service.demo.load import served
from driftscope_service.service import Service, open_service
from driftscope_service.settings import Settings

ROOT = Path(__file__).parents[3]
PHONE = {"width": 360, "height": 740}
#: Many times the half second that an idle machine needs less of (bench/pages.py).
MOST_S = 3.0


@dataclass(frozen=True)
class Many:
    url: str
    service: Service

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, headers={"accept": "text/html"}, timeout=60.0, **options)

    def rows(self, path: str) -> list[str]:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text[:500]
        return re.findall(r"<strong>(run-\d+)</strong>", answer.text)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    """In place of the one with three runs."""
    spec = importlib.util.spec_from_file_location("many_runs", ROOT / "scripts" / "many_runs.py")
    assert spec is not None and spec.loader is not None
    many_runs = importlib.util.module_from_spec(spec)
    sys.modules["many_runs"] = many_runs
    spec.loader.exec_module(many_runs)
    settings = Settings(port=0, data_dir=tmp_path_factory.mktemp("many") / "data")
    with open_service(settings) as service:
        with service.database.write() as connection:
            many_runs.add_runs(connection, of_steps=12)
        with served(service, settings) as url:
            yield Many(url, service)


def found(page: Page, count: int) -> None:
    expect(page.locator(".found strong")).to_have_text(str(count))


def test_five_hundred_runs_are_narrowed_down_as_one_types(look: Any) -> None:
    page = look().at("/runs?limit=500")
    found(page, 500)
    assert page.locator("table.runs tbody tr").count() == 500
    page.get_by_label("Search name, note, tags and labels").press_sequentially("learning RATE")
    found(page, 10)
    expect(page).to_have_url(re.compile(r"/runs\?text=learning\+RATE&limit=500$"))
    page.get_by_label("Search name, note, tags and labels").fill("")
    found(page, 500)
    page.get_by_role("checkbox", name="bug-like").check()
    found(page, 83)
    page.get_by_role("checkbox", name="stale").check()
    expect(page).to_have_url(re.compile("state=stale&verdict=bug_like"))
    tones = page.locator("table.runs tbody tr td:nth-child(5) .state").all_inner_texts()
    assert set(tones) == {"stale"} and len(tones) < 83
    page.get_by_text("Cause, tags, model, engine, time").click()
    page.get_by_label("Model").fill("Qwen3-8B")
    expect(page).to_have_url(re.compile("model=Qwen3-8B"))
    narrowed = page.locator("table.runs tbody tr")
    expect(narrowed.first).to_contain_text("Qwen3-8B")
    address = page.url
    # The address alone gives the same list and the same form.
    again = look().page
    again.goto(address)
    assert again.locator("table.runs tbody tr").count() == narrowed.count()
    assert again.get_by_role("checkbox", name="bug-like").is_checked()
    expect(again.get_by_role("combobox", name="Model")).to_have_value("Qwen3-8B")
    # A chip takes its condition back, and the form follows.
    again.get_by_role("link", name="Without verdict: bug-like").click()
    assert not again.get_by_role("checkbox", name="bug-like").is_checked()
    expect(again).not_to_have_url(re.compile("verdict"))
    again.get_by_role("link", name="All runs", exact=True).click()
    found(again, 500)
    # Back, back: what was asked before.
    page.go_back()
    expect(page).not_to_have_url(re.compile("model"))


def test_the_worst_come_first_page_by_page(look: Any) -> None:
    page = look().at("/runs")
    page.select_option("#sort", "worst")
    expect(page).to_have_url(re.compile(r"\?sort=worst$"))
    first = page.locator("table.runs tbody tr")
    expect(first.first).to_contain_text("bug-like")
    assert first.count() == 50
    page.get_by_role("link", name="More runs").click()
    expect(page).to_have_url(re.compile("sort=worst&cursor="))
    expect(page.locator("table.runs tbody tr").last).to_contain_text("above the floor")
    page.get_by_role("link", name="First page").click()
    expect(page).to_have_url(re.compile(r"\?sort=worst$"))


def test_a_row_in_sight_asks_for_its_drift(look: Any) -> None:
    page = look().at("/runs?sort=name")
    # The name of the limit is in no column of the runs.
    expect(page.locator("table.runs tbody tr", has_text="run-0003")).to_contain_text("limit 0.1")
    expect(page.locator("table.runs tbody tr").first).to_contain_text("12 steps are too few")


def test_all_pages_together_are_all_runs(site: Many) -> None:
    names, path = [], "/runs?sort=name&limit=200"
    while path:
        html = site.get(path).text
        names += re.findall(r"<strong>(run-\d+)</strong>", html)
        following = re.search(r'href="(/runs\?[^"]*cursor=[^"]*)"[^>]*>More runs', html)
        path = "" if following is None else following[1].replace("&amp;", "&")
    assert names == [f"run-{place:04}" for place in range(500)]


def test_a_page_of_500_takes_no_time(site: Many) -> None:
    started = time.perf_counter()
    assert len(site.rows("/runs?limit=500")) == 500
    assert time.perf_counter() - started < MOST_S


def test_without_a_script_the_form_gives_a_clean_address(look: Any) -> None:
    page = look(java_script_enabled=False).at("/runs")
    page.locator("#text").fill("keep")
    page.get_by_label("running").check()
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile(r"/runs\?text=keep&state=running$"))
    assert 0 < page.locator("table.runs tbody tr").count() < 20


def test_nothing_found_and_nothing_left_are_said(site: Many) -> None:
    assert "No run is like that" in site.get("/runs?text=nowhere").text
    for path in ("/runs?cursor=x", "/runs?stat=stale", "/runs?state=gone", "/runs?limit=501"):
        assert site.get(path).status_code == 422, path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme: str, look: Any, accessible: Callable[[Page], None]) -> None:
    query = "text=run&state=running&verdict=bug_like&model=gpt-oss-20b&tag=prod"
    page = look(color_scheme=scheme).at(f"/runs?{query}")
    accessible(page)
    page.goto(f"{page.url.partition('/runs')[0]}/runs/run-0000/delete")
    accessible(page)


#: But for tables, which scroll in a frame of their own.
WIDER = """() => [...document.querySelectorAll("body *")].filter(one => {
    const own = one.getBoundingClientRect(), parent = one.parentElement.getBoundingClientRect();
    const hidden = one.closest(".visually-hidden, .skip, option, datalist");
    return !hidden && !one.parentElement.closest(".scroll") && own.width > parent.width + 1;
}).map(one => one.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path",
    ["/runs?limit=50", "/runs?tag=keep&sort=worst", "/runs/run-0003", "/runs/run-0003/delete"],
)
def test_on_a_phone_nothing_is_wider_than_what_holds_it(path: str, scheme: str, look: Any) -> None:
    page = look(viewport=PHONE, color_scheme=scheme).at(path)
    if page.locator(".marks").count():
        page.get_by_text("Tags, note, baseline, delete").click()
    else:
        for one in page.locator("details summary").all():
            one.click()
    assert page.evaluate(WIDER) == []
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scroll, client = page.evaluate(widths)
    assert scroll <= client


def test_tags_note_and_baseline_from_the_page_of_a_run(look: Any) -> None:
    page = look().at("/runs/run-0096")
    page.get_by_text("Tags, note, baseline, delete").click()
    page.get_by_label("Tags, parted by spaces").fill("release, checked")
    page.get_by_label("Note", exact=True).fill("first line\nsecond <b>line</b>")
    page.get_by_role("button", name="Save").click()
    marks = page.get_by_role("region", name="Tags and note")
    expect(marks.get_by_role("link", name="release")).to_be_visible()
    expect(marks.locator(".note")).to_have_text("first line\nsecond <b>line</b>")
    page.get_by_text("Tags, note, baseline, delete").click()
    page.get_by_role("button", name="Pin as baseline").click()
    expect(marks).to_contain_text("baseline of Qwen3-8B")
    page.goto(page.url.replace("run-0096", "run-0104"))
    expect(marks).to_contain_text(
        re.compile(r"Compared with baseline run-0096: mean \|Δ\| [\d.]+ times")
    )
    marks.get_by_role("link", name=re.compile("times")).click()
    expect(page).to_have_url(re.compile(r"/compare\?a=run-0096&b=run-0104$"))
    page.goto(page.url.partition("/compare")[0] + "/runs?tag=release")
    page.get_by_role("link", name="run-0096").click()
    page.get_by_text("Tags, note, baseline, delete").click()
    page.get_by_role("button", name="Unpin").click()
    expect(marks.locator(".found")).not_to_contain_text("baseline")


def test_marks_that_are_not_accepted_are_said(site: Many) -> None:
    answer = httpx.post(f"{site.url}/runs/run-0001/marks", data={"tags": "x" * 65, "note": ""})
    assert answer.status_code == 422 and "at most 16 tags" in answer.text
    assert httpx.post(f"{site.url}/runs/nobody/marks", data={"note": "n"}).status_code == 404
    foreign = {"origin": "http://elsewhere.example"}
    answer = httpx.post(f"{site.url}/runs/run-0001/delete", headers=foreign)
    assert answer.status_code == 403


def test_a_step_then_the_run_are_deleted_from_their_pages(look: Any, site: Many) -> None:
    page = look(may_fail=True).at("/runs/run-0499/steps/11/delete")
    page.get_by_role("button", name="Delete the step").click()
    expect(page).to_have_url(re.compile("/runs/run-0499$"))
    assert site.get("/runs/run-0499/steps/11/delete").status_code == 404
    page.get_by_text("Tags, note, baseline, delete").click()
    page.get_by_role("link", name="Delete the run").click()
    page.get_by_label("Type run-0499").fill("run-0498")
    page.get_by_role("button", name="Delete the run").click()
    expect(page.get_by_role("alert")).to_contain_text("nothing was deleted")
    assert site.get("/runs/run-0499").status_code == 200
    page.get_by_label("Type run-0499").fill("run-0499")
    page.get_by_role("button", name="Delete the run").click()
    expect(page).to_have_url(re.compile("/runs$"))
    found(page, 499)
    assert site.get("/runs/run-0499").status_code == 404
