"""The recorded runs of the demo, on their pages in a real browser: each is named rightly."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from driftscope_service.demo.load import RUNS, push_runs, served
from driftscope_service.service import open_service
from driftscope_service.settings import Settings

pytestmark = pytest.mark.slow
#: The step with which both recorded faults begin (docs/demo.md), and how far off its date may be.
BREAKS_AT, OFF = 18, 1
NAMED = {"stale-weights": "stale_engine_weights", "wrong-temperature": "temperature_semantics"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(port=0, data_dir=tmp_path_factory.mktemp("demo"))
    with open_service(settings) as service, served(service, settings) as address:
        with httpx.Client(base_url=address, timeout=300.0) as client:
            push_runs(client, lambda _: None)
        yield address


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.mark.parametrize(("run", "cause"), NAMED.items())
def test_a_recorded_fault_is_named_on_its_page(demo: str, page: Page, run: str, cause: str) -> None:
    page.goto(f"{demo}/runs/{run}")
    expect(page.locator(".sentence").first).to_contain_text(cause)
    expect(page.locator(".cause code").first).to_have_text(cause)
    page.goto(f"{demo}/runs")
    expect(page.get_by_role("row", name=re.compile(f"^{run}"))).to_contain_text(cause)


@pytest.mark.parametrize("run", NAMED)
def test_a_recorded_fault_is_dated_rightly(demo: str, page: Page, run: str) -> None:
    """In the headline, at the dashed line and in the table."""
    page.goto(f"{demo}/runs/{run}")
    headline = page.locator("section[aria-label=State] .sentence").inner_text()
    told = re.search(r"(?:at|since) step (\d+)", headline)
    assert told is not None and abs(int(told[1]) - BREAKS_AT) <= OFF, headline
    rows = page.locator("#events tbody > tr")
    dated = [int(text) for text in rows.locator("th a").all_inner_texts()]
    assert [step for step in dated if abs(step - BREAKS_AT) <= OFF] == dated[:1] == dated
    with httpx.Client(base_url=demo, timeout=60.0) as client:
        plot = client.get(f"/runs/{run}/plots/drift.json").raise_for_status().json()
        drift = client.get(f"/v1/runs/{run}/steps").raise_for_status().json()["drift"]
    (line,) = plot["events"]
    assert abs(line["step"] - BREAKS_AT) <= OFF and line["low"] <= BREAKS_AT <= line["high"]
    (event,) = drift["events"]
    assert event["step"] == line["step"]
    (change,) = drift["metrics"]["abs_diff_mean"]["change_points"]
    assert abs(change["step"] - BREAKS_AT) <= OFF


def test_the_page_of_stale_weights_says_that_a_lag_grows(demo: str, page: Page) -> None:
    page.goto(f"{demo}/runs/stale-weights")
    expect(page.locator("section[aria-label=State] .sentence")).to_contain_text(
        re.compile("has grown from 0 to 1[0-9]")
    )


def test_the_healthy_run_has_no_cause(demo: str, page: Page) -> None:
    page.goto(f"{demo}/runs/healthy")
    expect(page.locator(".sentence").first).to_contain_text("Rounding alone explains")
    assert set(NAMED) | {"healthy"} == set(RUNS)
