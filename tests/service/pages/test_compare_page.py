"""/compare: two runs or two steps, in words, in a table, drawn over one another, as data."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from driftscope_service.runs.pages.compared import ratio

HTML = {"accept": "text/html"}
RUNS = "/compare?a=healthy&b=broken"
STEPS = "/compare?a=healthy:34&b=broken:35"
_COLOURS = """canvas => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return new Set(new Uint32Array(pixels.buffer)).size;
}"""


@pytest.mark.parametrize(
    "name, a, b, expected",
    [
        ("abs_diff_mean", 0.02, 0.04, 2.0),
        # Of the distances from 1: 0.1 against 0.2.
        ("prob_pearson", 0.9, 0.8, 2.0),
        ("abs_diff_mean", 0.0, 0.04, None),
        ("abs_diff_mean", None, 0.04, None),
        ("kl_k1", -0.1, 0.1, None),
        ("kl_k1", -0.1, -0.3, 3.0),
        ("prob_pearson", 1.0, 0.9, None),
    ],
)
def test_ratios_are_of_distances_from_the_ideal(
    name: str, a: float | None, b: float | None, expected: float | None
) -> None:
    found = ratio(name, a, b)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_without_a_run_there_is_nothing_to_compare(running: Any) -> None:
    page = running.client.get("/compare", headers=HTML)
    assert page.status_code == 200
    assert "No run has pushed a step yet" in page.text


def test_without_a_choice_the_page_offers_one(site: Any) -> None:
    page = site.html("/compare")
    assert "Name two of them" in page
    for run in ("healthy", "drifting", "broken"):
        assert f'<option value="{run}">' in page
    assert "plot-figure" not in page


def test_two_runs(site: Any) -> None:
    page = site.html("/compare", a="healthy", b="broken")
    # The planted factor is 14; a few tokens have no finite number.
    said = re.search(r"of broken is ([\d.]+) times that of healthy", page)
    assert said is not None and 10 < float(said.group(1)) < 20
    assert re.search(r"broken is beyond \d+ published limits", page)
    last = {
        run: site.client.get(f"/v1/runs/{run}/steps/35").json()["comparison"]["abs_diff_mean"]
        for run in ("healthy", "broken")
    }
    assert f"{last['broken'] / last['healthy']:.1f}" in page
    assert 'kind="overlay"' in page
    swapped = site.html("/compare", a="broken", b="healthy")
    assert "of broken is" in swapped and "times that of healthy" in swapped


def test_a_run_and_itself_are_alike(site: Any) -> None:
    page = site.html("/compare", a="healthy", b="healthy")
    assert "Both have about the same" in page and "within every published limit" in page


def test_two_steps_with_every_number(site: Any) -> None:
    page = site.html("/compare", a="drifting:3", b="drifting:30")
    assert re.search(r"of drifting, step 30 is 1\.\d+ times that of drifting, step 3", page)
    assert 'kind="histogram"' in page
    assert page.count('<th scope="row">') > 60
    # A run beside a step stands for its last one.
    assert "healthy, step 35" in site.html("/compare", a="healthy", b="drifting:3")


@pytest.mark.parametrize(
    "a, b, why",
    [
        ("healthy", "", "name both"),
        ("healthy", "nobody", "there is no run &#39;nobody&#39;"),
        ("healthy:3", "broken:4000", "has no complete step 4000"),
        ("healthy:x", "broken:4", "is neither a run nor run:step"),
        ("<script>alert(1)</script>", "broken", "is neither a run nor run:step"),
    ],
)
def test_what_cannot_be_compared_is_said_beside_the_form(
    a: str, b: str, why: str, site: Any
) -> None:
    page = site.html("/compare", 422, a=a, b=b)
    assert why in page and "<script>alert" not in page
    assert 'name="a"' in page and 'role="alert"' in page
    answer = site.client.get("/compare/plots/drift.json", params={"a": a, "b": b}, headers=HTML)
    assert answer.status_code == 422


def test_both_runs_as_data(site: Any) -> None:
    query = {"a": "healthy", "b": "broken", "metric": "kl_k3"}
    data = site.client.get("/compare/plots/drift.json", params=query).json()
    table = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    for letter, run in (("A", "healthy"), ("B", "broken")):
        own = site.client.get(f"/runs/{run}/plots/drift.json?metric=kl_k3").json()
        values = {row[0]: row[own["columns"].index("mean")] for row in own["rows"]}
        mine = {row["first_step"]: row["mean"] for row in table if row["side"] == letter}
        assert mine == values
    grouped = site.client.get("/compare/plots/drift.json", params={**query, "buckets": 10}).json()
    assert len(grouped["rows"]) <= 20 and "mean of a group" in grouped["note"]
    lines = site.client.get("/compare/plots/drift.csv", params=query).text.splitlines()
    assert len(lines) == 1 + len(table)
    bad = site.client.get(
        "/compare/plots/drift.json", params={**query, "metric": "x"}, headers=HTML
    )
    assert bad.status_code == 422


def test_both_histograms_as_data(site: Any) -> None:
    query = {"a": "healthy:34", "b": "broken:35"}
    data = site.client.get("/compare/plots/histogram.json", params=query).json()
    table = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    own = site.client.get("/runs/broken/steps/35/plots/histogram.json").json()
    tokens = own["columns"].index("tokens")
    mine = [row["tokens"] for row in table if row["side"] == "B"]
    assert mine == [row[tokens] for row in own["rows"]]
    for letter in "AB":
        share = sum(row["share"] for row in table if row["side"] == letter)
        assert 0.5 < share <= 1.0 + 1e-9


def test_tokens_that_are_no_longer_kept_are_said(site: Any) -> None:
    query = {"a": "healthy:3", "b": "healthy:35"}
    data = site.client.get("/compare/plots/histogram.json", params=query).json()
    assert "healthy, step 3: The tokens of this step are no longer kept" in data["note"]
    assert {row[0] for row in data["rows"]} == {"B"}
    assert "no longer kept" in site.html("/compare", **query)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/compare", RUNS, STEPS, "/compare?a=healthy&b=nobody"])
def test_axe_finds_nothing(
    path: str, scheme: Any, look: Any, accessible: Callable[[Page], None]
) -> None:
    page = look(color_scheme=scheme, may_fail="nobody" in path).drawn(path)
    page.locator("main details > summary").evaluate_all("all => all.forEach(one => one.click())")
    accessible(page)


@pytest.mark.slow
@pytest.mark.parametrize("path", [RUNS, STEPS, "/compare?a=healthy&b=healthy"])
def test_both_are_drawn(path: str, look: Any) -> None:
    page = look().drawn(path)
    expect(page.locator("plot-figure")).to_have_attribute("data-state", "drawn")
    assert page.locator(".chart canvas").first.evaluate(_COLOURS) > 4


@pytest.mark.slow
def test_from_the_form_to_another_number(look: Any) -> None:
    page = look().at("/compare")
    page.fill("#a", "healthy")
    page.fill("#b", "drifting")
    page.get_by_role("button", name="Compare").click()
    expect(page).to_have_url(re.compile(r"/compare\?a=healthy&b=drifting$"))
    page.select_option("#metric", "kl_k3")
    expect(page).to_have_url(re.compile("metric=kl_k3"))
    expect(page.get_by_role("heading", name="k3 = mean(ρ − 1 − Δ) over steps")).to_be_visible()
    page.wait_for_selector("plot-figure[data-state=drawn]")


@pytest.mark.slow
def test_on_a_phone_and_without_a_script(look: Any) -> None:
    for path in (RUNS, STEPS):
        page = look(viewport={"width": 390, "height": 800}).drawn(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    plain = look(java_script_enabled=False).at(RUNS)
    expect(plain.locator(".sentence")).to_contain_text("times that of healthy")
    plain.select_option("#metric", "kl_k3")
    plain.get_by_role("button", name="Show").click()
    expect(plain).to_have_url(re.compile("metric=kl_k3"))
