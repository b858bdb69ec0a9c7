"""The pages in a real browser: drawn, clicked through, accessible, readable without a script."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow
PHONE = {"width": 390, "height": 800}


def test_axe_finds_a_planted_fault(look: Any, accessible: Callable[[Page], None]) -> None:
    page = look().at("/runs")
    page.evaluate("document.querySelector('select').previousElementSibling.remove()")
    with pytest.raises(AssertionError, match="select-name"):
        accessible(page)


def test_every_plot_draws(look: Any) -> None:
    for path, plots in (("/runs/drifting", 1), ("/runs/broken/steps/35", 5)):
        page = look().drawn(path)
        states = page.locator("plot-figure").evaluate_all("all => all.map(p => p.dataset.state)")
        # One more where the diagnosis has a plot of its evidence.
        assert set(states) == {"drawn"} and len(states) >= plots
        # A canvas with more than one colour has something on it.
        for canvas in page.locator(".chart canvas").all():
            assert canvas.evaluate(_COLOURS) > 3


_COLOURS = """canvas => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return new Set(new Uint32Array(pixels.buffer)).size;
}"""


def test_from_the_runs_to_the_worst_token(look: Any) -> None:
    page = look().at("/runs")
    page.get_by_role("link", name="broken").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("broken")
    state = page.get_by_role("region", name="State")
    expect(state.locator(".sentence")).to_contain_text("published limits")
    page.get_by_role("link", name="35", exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Step 35")
    page.locator("#sequences tbody tr").nth(2).get_by_role("link").click()
    expect(page).to_have_url(re.compile(r"sequence=\d+"))
    expect(page.locator("#sequences tr.current")).to_have_count(1)
    assert page.locator(".tokens [class^=more], .tokens [class^=less]").count() > 0
    # Decoded by the tokenizer of the model that the step names.
    expect(page.locator(".tokens span").first).to_have_text(re.compile(r"w\d+"))


def test_a_choice_is_in_the_address_and_comes_back_from_it(look: Any) -> None:
    looked = look()
    page = looked.drawn("/runs/drifting")
    page.select_option("#metric", "kl_k3")
    expect(page).to_have_url(re.compile("metric=kl_k3"))
    expect(page.get_by_role("heading", name="k3 = mean(ρ − 1 − Δ) over steps")).to_be_visible()
    page.wait_for_selector("plot-figure[data-state=drawn]")
    address = page.url
    page.go_back()
    expect(page.locator("#metric")).to_have_value("abs_diff_mean")
    again = look().page
    again.goto(address)
    expect(again.locator("#metric")).to_have_value("kl_k3")


def test_a_click_on_the_plot_opens_the_step(look: Any) -> None:
    page = look().drawn("/runs/drifting")
    page.locator("#drift-plot .chart").scroll_into_view_if_needed()
    at = page.evaluate(
        """() => {
            const place = document.querySelector('#drift-plot .chart');
            const chart = echarts.getInstanceByDom(place);
            const point = chart.getOption().series.find(one => one.data[5]?.href).data[5].value;
            const [x, y] = chart.convertToPixel({gridIndex: 0}, point);
            const box = place.getBoundingClientRect();
            return [box.left + x, box.top + y];
        }"""
    )
    page.mouse.click(*at)
    expect(page).to_have_url(re.compile(r"/runs/drifting/steps/5$"))


def test_the_keyboard_reaches_everything(look: Any) -> None:
    page = look().drawn("/runs/drifting")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"metric", "first", "last", "BUTTON", "SUMMARY", "A"} <= reached
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


@pytest.mark.parametrize(
    "path, words",
    [
        ("/runs", "is within every limit"),
        ("/runs/drifting", "shifted"),
        ("/runs/broken", "beyond"),
        ("/runs/broken/steps/35", "sequences that differ most"),
    ],
)
def test_without_a_script_tables_and_verdicts_are_there(path: str, words: str, look: Any) -> None:
    page = look(java_script_enabled=False).at(path)
    text = page.locator("main").inner_text().lower()
    assert words in text
    assert page.locator("tbody tr").count() >= 3
    # Nothing that only a script fills takes up room.
    assert not any(one.is_visible() for one in page.locator(".chart").all())


def test_a_choice_without_a_script(look: Any) -> None:
    page = look(java_script_enabled=False).at("/runs/drifting")
    page.select_option("#metric", "abs_diff_p99")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile("metric=abs_diff_p99"))
    expect(page.locator("#metric")).to_have_value("abs_diff_p99")


def test_a_plot_that_gets_no_data_says_so(look: Any) -> None:
    looked = look(may_fail=True)
    looked.page.route("**/plots/*.json*", lambda route: route.fulfill(status=503, body="{}"))
    page = looked.drawn("/runs/drifting")
    failed = page.locator("plot-figure:has(#drift-plot)")
    expect(failed.locator(".plot-status")).to_contain_text("could not be drawn")
    expect(failed).to_have_attribute("data-state", "failed")


def test_a_choice_that_gets_no_answer_says_so(
    look: Any, accessible: Callable[[Page], None]
) -> None:
    looked = look(may_fail=True)
    page = looked.at("/runs")
    rows = page.locator("tbody tr").count()
    page.route("**/runs?*metric=*", lambda route: route.fulfill(status=503, body="<p>no</p>"))
    page.select_option("#metric", "kl_k3")
    expect(page.get_by_role("alert")).to_contain_text("The service answered 503")
    # An error does not take the place of what was there.
    assert page.locator("tbody tr").count() == rows > 0
    accessible(page)
    page.unroute("**/runs?*metric=*")
    page.select_option("#metric", "abs_diff_p99")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_csv_of_a_plot_is_saved(look: Any) -> None:
    page = look(accept_downloads=True).drawn("/runs/broken/steps/35")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="How large |Δ| is, data as CSV").click()
    assert waiting.value.suggested_filename == "broken-35-histogram.csv"
