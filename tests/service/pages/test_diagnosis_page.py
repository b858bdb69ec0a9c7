"""A diagnosis on the page of a step and of a run, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from driftscope_service.runs.ingest.analysis import step_verdict
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import NewStep, StepRepository

pytestmark = pytest.mark.slow
RUN = "diagnosed"
STEP = f"/runs/{RUN}/steps/9"
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def diagnosed(site: Any, diagnoses: Any) -> str:
    """Ten steps: at the floor, then bug-like from step 6 on. Returns the run's page."""
    analysis = site.client.get("/v1/runs/broken/steps/35").json()
    with site.service.database.write() as connection:
        runs = RunRepository(connection)
        found, _ = runs.put(RUN, {"model": "m"})
        for step in range(10):
            said = diagnoses.at_floor if step < 6 else diagnoses.bug_like
            document = {"comparison": analysis["comparison"], "diagnosis": said.to_dict()}
            names = ("aliases", "presets", "crossed_limits", "profiles")
            document |= {name: analysis[name] for name in names}
            new = NewStep(
                step, "0" * 64, 0, 1, [], 18, 4, {"model": "m"}, [], {"abs_diff_mean": 0.1},
                json.dumps(document).encode(), step_verdict(said),
            )  # fmt: skip
            steps = StepRepository(connection)
            steps.add(found.number, new)
            stored_step = steps.get(RUN, step)
            assert stored_step is not None
            steps.dropped(stored_step.number)  # its tokens were never there
            runs.step_completed(found.number, new)
    return f"/runs/{RUN}"


def test_the_step_page_says_the_sentence_and_the_cause(diagnosed: str, look: Any) -> None:
    page = look().drawn(STEP)
    lead = page.get_by_role("region", name="What this step says")
    expect(lead.locator(".sentence")).to_contain_text("sampled at temperature 0.61 & the trainer")
    expect(lead.locator(".sentence .state")).to_have_text("bug-like")
    expect(lead.locator(".cause code")).to_have_text("temperature_semantics")
    expect(lead.get_by_role("row", name=re.compile("evidence 0"))).to_contain_text("0.612")
    expect(lead.locator("plot-figure")).to_have_attribute("data-state", "drawn")
    # Above everything else that the page says of the step.
    assert page.locator(".sentence").first.inner_text() == lead.locator(".sentence").inner_text()
    candidates = lead.get_by_text("2 other candidates")
    expect(lead.get_by_role("link", name="rope_config")).not_to_be_visible()
    candidates.click()
    expect(lead.get_by_role("link", name="rope_config")).to_be_visible()


def test_from_the_runs_to_the_step_where_it_began(diagnosed: str, look: Any) -> None:
    page = look().at("/runs")
    row = page.get_by_role("row", name=re.compile(f"^{RUN}"))
    expect(row).to_contain_text("temperature_semantics")
    row.get_by_role("link", name=RUN).click()
    expect(page.locator(".sentence").first).to_contain_text("temperature 0.61")
    strip = page.get_by_role("region", name="Verdict and cause over the steps")
    expect(strip.get_by_role("img")).to_be_visible()
    strip.get_by_role("row", name=re.compile("bug-like")).get_by_role("link").first.click()
    expect(page).to_have_url(re.compile("/steps/6$"))


@pytest.mark.parametrize("kind", ["line", "points", "bars"])
def test_every_kind_of_plot_is_drawn(diagnosed: str, kind: str, look: Any) -> None:
    looked = look()
    data = {"kind": kind, "x_label": "x", "y_label": "y", "columns": ["x", "y"],
            "rows": [[0.0, 1.0], [1.0, None], [2.0, 3.0], [3.0, -1.0]]}  # fmt: skip
    looked.page.route("**/plots/evidence.json", lambda route: route.fulfill(json=data))
    page = looked.drawn(STEP)
    canvas = page.locator("#diagnosis-plot .chart canvas").first
    assert (
        canvas.evaluate(
            """canvas => {
            const context = canvas.getContext('2d');
            const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
            return new Set(new Uint32Array(pixels.buffer)).size;
        }"""
        )
        > 3
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", [f"/runs/{RUN}", STEP])
def test_axe_finds_nothing(
    diagnosed: str, path: str, scheme: Any, look: Any, accessible: Callable[[Page], None]
) -> None:
    page = look(color_scheme=scheme).drawn(path)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    accessible(page)


@pytest.mark.parametrize("path", ["/runs", f"/runs/{RUN}", STEP])
def test_nothing_scrolls_sideways_on_a_phone(diagnosed: str, path: str, look: Any) -> None:
    page = look(viewport=PHONE).drawn(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_without_a_script_the_answer_and_its_table_are_there(diagnosed: str, look: Any) -> None:
    page = look(java_script_enabled=False).at(STEP)
    expect(page.locator(".sentence").first).to_contain_text("temperature 0.61")
    expect(page.locator("#diagnosis .evidence tbody tr")).to_have_count(5)
    page.get_by_text("Table of “Δ by log p”").click()
    expect(page.locator("#diagnosis-plot table")).to_be_visible()
    expect(page.locator("#diagnosis-plot .chart")).not_to_be_visible()
