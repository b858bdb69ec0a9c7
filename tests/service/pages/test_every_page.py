"""Every page, on a phone and on a desk, light and dark: nothing leaves its box, axe finds nothing.

Measured, not looked at: no element that is seen is wider than the box it is in, but for what
scrolls in a box of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.slow
PHONE, DESK = (390, 844), (1280, 900)
#: The other two say nothing new: colours do not depend on the width, nor widths on the colours.
LOOKS: tuple[tuple[tuple[int, int], Literal["light", "dark"]], ...] = (
    (PHONE, "dark"),
    (DESK, "light"),
)
#: {…}: identifier of the stored report of that kind, or of the job that ran.
PATHS = (
    *("/runs", "/runs/broken", "/runs/drifting?metric=prob_pearson", "/runs/broken/steps/35"),
    *("/runs/healthy", "/runs/broken?metric=prob_pearson&first=10&last=33"),
    *("/compare", "/compare?a=healthy&b=drifting", "/compare?a=healthy:3&b=broken:35"),
    *("/probes/new", "/probes/new/paired", "/probes/new/determinism", "/probes/new/kernels"),
    "/probes/new/nightly",
    *("/runs/broken/delete", "/runs/broken/steps/35/delete", "/probes/{paired}/delete"),
    *("/probes?kind=kernels", "/reports/{kernels}"),
    *("/probes", "/probes/{paired}", "/probes/{determinism}", "/reports/{paired}"),
    *("/probes/{explain}", "/reports/{explain}"),
    *("/kernels", "/lint", "/nightly", "/reports/{nightly}", "/jobs", "/jobs/{job}", "/audit"),
    *("/causes", "/causes/temperature_semantics", "/causes/unexplained"),
    *("/glossary", "/api", "/docs", "/docs?q=limit", "/docs/limits", "/docs/pages"),
    *("/docs/push-format", "/docs/runbooks", "/login", "/runs/nobody", "/nowhere"),
)
MISSING = {"/runs/nobody", "/nowhere"}
#: Elements that stick out of the content box of what they are in, by more than the rounding of a
#: layout to whole pixels. A box that scrolls, or clips on purpose, holds what it likes.
WIDER = """() => {
    const scrolls = (style) => ['auto', 'scroll', 'hidden', 'clip'].includes(style.overflowX);
    const passing = ['inline', 'contents', 'table-row', 'table-row-group', 'table-header-group'];
    // For screen readers alone, as is the head of a table whose rows are blocks.
    const cut = (one) => getComputedStyle(one).clipPath !== 'none';
    const clipped = (one) => one && (cut(one) || clipped(one.parentElement));
    const told = (one) => one.outerHTML.slice(0, 120);
    const found = [];
    for (const one of document.body.querySelectorAll('*')) {
        const box = one.getBoundingClientRect();
        if (!box.width || !box.height) continue;
        if (one.closest('svg, .skip, .visually-hidden') || one.matches('svg *')) continue;
        let [inside, within] = [one, one.parentElement];
        let outside = clipped(one);
        // The nearest box that lays out: a row of a table is as wide as the table says.
        while (within !== document.documentElement) {
            const style = getComputedStyle(within);
            if (scrolls(style)) { outside = true; break; }
            if (!passing.includes(style.display)) break;
            within = within.parentElement;
        }
        if (outside || getComputedStyle(one).position === 'absolute') continue;
        const around = within.getBoundingClientRect();
        if (box.right > around.right + 1.5 || box.left < around.left - 1.5)
            found.push(`${box.left}–${box.right} in ${around.left}–${around.right}: ${told(one)}`);
    }
    return found;
}"""

OPENED = (
    "most => document.querySelectorAll('details').forEach((one, at) => {one.open = at < most;})"
)
#: axe takes a minute for the numbers of nine cells, and the fifth table says what the first says.
EVERY, MOST_FOR_AXE = 1000, 4
#: Plots follow the size of their box in the frame after it has changed.
SETTLED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def addresses(site: Any, stored_reports: dict[str, str]) -> dict[str, str]:
    asked = {"targets": ["torch"], "ops": ["linear"], "dtypes": ["fp32"], "threads": [1]}
    started = site.client.post("/v1/probes/kernels", json=asked)
    assert started.status_code == 202, started.text
    return {**stored_reports, "job": started.json()["id"]}


@pytest.mark.parametrize("path", PATHS)
def test_nothing_leaves_its_box_and_axe_finds_nothing(
    path: str, look: Any, accessible: Callable[[Page], None], addresses: dict[str, str]
) -> None:
    page = look(may_fail=path in MISSING).drawn(path.format(**addresses))
    for size, scheme in LOOKS:
        page.evaluate(OPENED, EVERY)
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_selector("plot-figure:not([data-state])", state="detached")
        page.evaluate(SETTLED)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate(WIDER) == []
        page.evaluate(OPENED, MOST_FOR_AXE)
        accessible(page)


def test_a_box_that_is_left_is_seen(look: Any) -> None:
    page = look(viewport={"width": PHONE[0], "height": PHONE[1]}).at("/glossary")
    page.evaluate(
        "document.querySelector('h1').replaceChildren(Object.assign(document.createElement('p'),"
        " {textContent: 'x', className: 'planted'}))"
    )
    page.evaluate("document.querySelector('.planted').style.width = '500px'")
    assert [one for one in page.evaluate(WIDER) if "planted" in one]
