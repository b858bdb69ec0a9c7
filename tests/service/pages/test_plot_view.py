"""What the axis of a plot shows, in Chromium: ticks, range, limits out of sight, clicks."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(browser: Any, site: Any) -> Any:
    page = browser.new_page()
    page.goto(f"{site.url}/glossary")
    yield page
    page.close()


def run(page: Page, script: str, *given: Any) -> Any:
    """`script`: a function of the module view.js and what is given."""
    wrapped = f"async (given) => ({script})(await import('/static/plots/view.js'), ...given)"
    return page.evaluate(wrapped, list(given))


@pytest.mark.parametrize("low", [1e-9, 3e-4, 0.011, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("factor", [4.7, 6, 10, 40, 1e3, 1e8])
def test_a_logarithmic_axis_has_at_least_two_ticks(seen: Page, low: float, factor: float) -> None:
    ticks = run(seen, "(view, low, high) => view.logTicks(low, high)", low, low * factor)
    assert 2 <= len(ticks) <= 10
    assert ticks == sorted(ticks) and low <= ticks[0] and ticks[-1] <= low * factor


VIEW = """(view, values, limits, about) => {
    const {axis, ...rest} = view.view(values, limits, about);
    const ticks = [rest.min, (rest.min + rest.max) / 2, rest.max];
    return {...rest, labels: ticks.map(axis.axisLabel.formatter)};
}"""


def shown(page: Page, values: list[float], limits: list[float], **about: Any) -> Any:
    given = [{"value": value, "direction": "above"} for value in limits]
    return run(page, VIEW, values, given, {"logarithmic": False, "ideal": 0, **about})


def test_rounding_noise_does_not_fill_the_plot(seen: Page) -> None:
    noise = [1 - 3e-13, 1 - 5e-13, 1 - 4e-13]
    found = shown(seen, noise, [0.99], ideal=1)
    assert (found["max"] - found["min"]) > 1e6 * (max(noise) - min(noise))
    level = shown(seen, [0.0131, 0.01311], [], unit="nats")
    assert (level["max"] - level["min"]) > 0.04 * 0.0131


def test_a_limit_is_in_sight_or_said_to_be_out_of_it(seen: Page) -> None:
    near = shown(seen, [0.05, 0.06], [0.1], unit="nats")
    assert near["said"] == "" and near["max"] > 0.1 and len(near["limits"]) == 1
    far = shown(seen, [1e-5, 1.1e-5], [0.1], logarithmic=True, unit="nats")
    assert far["said"] == "Limit 0.100 nats above this view." and far["max"] < 0.1
    below = shown(seen, [1 - 1e-9], [0.99], ideal=1)
    assert below["said"] == "Limit 0.990 below this view."
    assert shown(seen, [0.001], [0.1], form="fraction")["said"] in (
        "",
        "Limit 10% above this view.",
    )


def test_ticks_that_lie_close_together_have_labels_of_their_own(seen: Page) -> None:
    for values, about in (
        ([0.999, 0.9993], {"ideal": 1}),
        ([1 - 1e-9, 1 - 2e-9], {"ideal": 1}),
        ([1234.5, 1234.6], {}),
        ([0.0, 0.0], {"form": "fraction"}),
    ):
        assert len(set(shown(seen, values, [0.99], **about)["labels"])) == 3


def test_a_click_anywhere_in_the_column_opens_the_step(look: Any) -> None:
    page = look().drawn("/runs/drifting")
    chart = page.locator("#drift-plot .chart canvas")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    at = page.evaluate(
        "() => echarts.getInstanceByDom(document.querySelector('#drift-plot .chart'))"
        ".convertToPixel({gridIndex: 0}, [12, 0.02])[0]"
    )
    # Near the top of the axes, far from the line, and a little beside the point.
    page.mouse.click(box["x"] + at + 4, box["y"] + 60)
    expect(page).to_have_url(re.compile(r"/runs/drifting/steps/12$"))


def test_the_reader_sees_their_own_time_and_utc_as_the_tooltip(look: Any) -> None:
    page = look(timezone_id="Asia/Tokyo").at("/runs/healthy/steps/3")
    time = page.locator("main time").first
    expect(time).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (JST|GMT\+9)$"))
    assert re.fullmatch(r"[-\d]+ [:\d]+ UTC", time.get_attribute("title"))
    expect(page.locator("footer .zone")).to_have_text("times in Asia/Tokyo; UTC as tooltip")
    without = look(timezone_id="Asia/Tokyo", java_script_enabled=False).at("/runs/healthy/steps/3")
    expect(without.locator("main time").first).to_have_text(re.compile("UTC$"))
