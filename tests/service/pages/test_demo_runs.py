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
#: Steps in which the recorded faults begin (docs/demo.md) leave a page no time to be at the floor.
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


def test_the_healthy_run_has_no_cause(demo: str, page: Page) -> None:
    page.goto(f"{demo}/runs/healthy")
    expect(page.locator(".sentence").first).to_contain_text("Rounding alone explains")
    assert set(NAMED) | {"healthy"} == set(RUNS)
