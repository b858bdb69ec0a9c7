"""/probes and /probes/{id}: the list, the grid as a heat map and as data, the axes with replays."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from playwright.sync_api import expect

from driftscope_probes.determinism.batch import Onset
from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired.grid import paired_grid
from driftscope_service.experiments.paired.shades import SHADES, grid_state, grid_view

HTML = {"accept": "text/html"}
_CLICK = "all => all.forEach(one => one.click())"


@pytest.fixture(scope="session")
def paired(reports: Any) -> PairedReport:
    report: PairedReport = reports.paired_report()
    return report


def html(running: Any, path: str, status: int = 200) -> str:
    answer = running.client.get(path, headers=HTML, follow_redirects=False)
    assert answer.status_code == status, answer.text
    return str(answer.text)


def test_shades_order_cells_as_the_number_does(paired: PairedReport) -> None:
    grid = paired_grid(paired.grid)
    for metric, ideal in (("abs_diff_mean", 0.0), ("kl_k3", 0.0), ("prob_pearson", 1.0)):
        view = grid_view(grid, metric)
        ordered = sorted(view.cells, key=lambda one: abs(one.cell.comparison[metric] - ideal))
        shades = [one.shade for one in ordered if one.shade is not None]
        assert len(shades) == len(view.cells)
        assert shades == sorted(shades)
        if metric != "abs_diff_mean":
            assert (shades[0], shades[-1]) == (0, SHADES)


def test_a_number_that_is_undefined_has_no_shade(paired: PairedReport) -> None:
    cell = paired.grid[0]
    undefined = {"prob_pearson": "all probabilities are equal"}
    comparison = {**cell.comparison, "prob_pearson": None, "undefined": undefined}
    view = grid_view(
        paired_grid([cell.model_copy(update={"comparison": comparison})]), "prob_pearson"
    )
    assert view.cells[0].shade is None
    assert view.cells[0].number.reason == "all probabilities are equal"


def test_limits_count_where_both_sides_compute_alike(paired: PairedReport) -> None:
    grid = paired_grid(paired.grid)
    assert {cell.label for cell in grid.selected} == {
        f"{d} × {d}" for d in ("bf16", "fp16", "fp32")
    }
    view = grid_view(grid, "abs_diff_mean")
    assert grid_state(view, "").word == ("beyond limits" if view.crossed else "within limits")
    broken = [
        cell.model_copy(update={"comparison": {**cell.comparison, "nonfinite_tokens": 3}})
        for cell in paired.grid
        if cell.engine_dtype == cell.trainer_dtype
    ]
    assert grid_state(grid_view(paired_grid(broken), "abs_diff_mean"), "").tone == "bad"


def test_without_a_report_the_page_says_where_they_come_from(running: Any) -> None:
    page = html(running, "/probes")
    assert "No report in this data folder yet" in page
    assert str(running.data_dir) in page and "driftscope probe paired" in page


def test_the_list_has_every_kind(running: Any, reports: Any) -> None:
    ids = reports.store_all(running.service)
    page = html(running, "/probes")
    for kind, report in ids.items():
        place = "probes" if kind in ("paired", "determinism") else "reports"
        assert f'href="/{place}/{report}"' in page
    assert "FP16 on both sides is 7.5" in page
    assert "9 of 9 planted faults caught" in page
    assert f"All {reports.NIGHTS} nightly checks" in page
    nights = html(running, "/probes?kind=nightly")
    assert nights.count("As expected: ") == reports.NIGHTS - 3 - 1
    assert "Paired probes</h2>" not in nights
    html(running, "/probes?kind=none", 422)
    html(running, "/probes?kind=paired&cursor=x", 422)


def test_pages_of_one_kind(running: Any, reports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftscope_service.experiments.pages.PAGE_SIZE", 2)
    ids = [reports.store(running.service, reports.night(number)) for number in range(3)]
    first = html(running, "/probes?kind=nightly")
    assert ids[0] not in first
    earlier = re.search(r'href="(/probes\?kind=nightly&amp;cursor=[^"]+)"', first)
    assert earlier is not None
    assert ids[0] in html(running, earlier.group(1).replace("&amp;", "&"))


def test_the_grid_has_every_number(running: Any, reports: Any, paired: PairedReport) -> None:
    report = reports.store(running.service, paired, reports.MODEL)
    page = html(running, f"/probes/{report}")
    assert paired.reading.sentence in page
    assert len(re.findall(r'<td class="cell(?: matched)? heat-\d+', page)) == len(paired.grid)
    assert page.count(" matched") == 3
    assert 'href="#cell-bf16--bf16"' in page and 'id="cell-bf16--bf16"' in page
    assert "driftscope probe paired --model smollm2-135m" in page
    assert "7.47" in page and "about 8" in page
    shaded = html(running, f"/probes/{report}?metric=kl_k3")
    assert "The grid: k3" in shaded
    assert "from closest to furthest" in shaded
    html(running, f"/probes/{report}?metric=tokens", 422)


def test_the_grid_as_data(running: Any, reports: Any, paired: PairedReport) -> None:
    report = reports.store(running.service, paired, reports.MODEL)
    data = running.client.get(f"/probes/{report}/plots/grid.json").json()
    table = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    for row, cell in zip(table, paired.grid, strict=True):
        assert row["engine_dtype"] == cell.engine_dtype
        for name in ("abs_diff_mean", "kl_k3", "tokens"):
            assert row[name] == cell.comparison[name]
    answer = running.client.get(f"/probes/{report}/plots/grid.csv")
    assert "attachment" in answer.headers["content-disposition"]
    lines = list(csv.reader(io.StringIO(answer.text)))
    assert len(lines) == 1 + len(paired.grid)
    assert running.client.get(f"/probes/{report}/plots/axes.json", headers=HTML).status_code == 404


def test_axes_with_onset_and_replay(running: Any, reports: Any) -> None:
    report = reports.store(running.service, reports.determinism_report(), reports.MODEL)
    page = html(running, f"/probes/{report}")
    assert "6 of 40 axes differ: batch size (bf16, stock) from 2" in page
    assert "4 could not be run" in page
    assert "--axes batch_size --dtypes bf16 --seed 0" in page
    assert "the cache never filled" in page
    assert "token 17 of prompt 3" in page
    data = running.client.get(f"/probes/{report}/plots/axes.json").json()
    assert len(data["rows"]) == 44
    first = dict(zip(data["columns"], data["rows"][0], strict=True))
    assert (first["verdict"], first["differs_from"]) == ("differs", "2")


def test_names_have_no_last_equal_value(running: Any, reports: Any) -> None:
    content = reports.determinism_report()
    axis = next(axis for axis in content.axes if axis.onset)
    onset = Onset(
        setting="prefix cache", equal_up_to=None, differs_from="hot", tested=("off", "cold", "hot")
    )
    content = content.model_copy(update={"axes": [axis.model_copy(update={"onset": onset})]})
    page = html(running, f"/probes/{reports.store(running.service, content, reports.MODEL)}")
    assert "Different at prefix cache hot; tried: off, cold, hot." in page


def test_invariant_kernels_that_differ_are_worse_than_stock_ones(reports: Any) -> None:
    from driftscope_service.experiments.determinism.html import axes_state

    stock = reports.determinism_report(kernels=("stock",)).axes
    assert axes_state(stock).tone == "watch"
    assert axes_state([a.model_copy(update={"kernels": "invariant"}) for a in stock]).tone == "bad"
    assert axes_state(reports.determinism_report(kernels=("invariant",)).axes).tone == "good"
    assert axes_state([axis for axis in stock if axis.verdict == "not_run"]).tone == "none"


class Content(HTMLParser):
    """Ids of sections and text of headings, cells and commands of the main part, in order."""

    TAGS = frozenset(["h1", "h2", "h3", "th", "td", "li", "pre", "summary", "legend"])

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self._open: list[str] = []
        self.feed(page[page.index("<main") : page.index("</main>")])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self.said.append(f"#{dict(attrs).get('id')}")
        if tag == "nav":
            self._open.append(tag)
        if tag in self.TAGS and "nav" not in self._open:
            self._open.append(tag)
            self.said.append("")

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "nav":
            self.said[-1] = " ".join(f"{self.said[-1]} {data}".split())


@pytest.mark.parametrize("kind", ["paired", "determinism"])
def test_both_forms_of_a_report_say_the_same(
    running: Any, reports: Any, paired: dict[str, Any], kind: str
) -> None:
    content = paired if kind == "paired" else reports.determinism_report()
    report = reports.store(running.service, content, reports.MODEL)
    site, alone = (Content(html(running, f"/{at}/{report}")) for at in ("probes", "reports"))
    assert len(alone.said) > 300
    assert site.said == alone.said


def test_other_kinds_lead_to_their_own_page(running: Any, reports: Any) -> None:
    report = reports.store(running.service, reports.kernels_report())
    answer = running.client.get(f"/probes/{report}", headers=HTML, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/reports/{report}")


def test_a_report_that_is_none_or_gone(running: Any, reports: Any, paired: PairedReport) -> None:
    assert "no report" in html(running, "/probes/report_none", 404)
    report = reports.store(running.service, paired, reports.MODEL)
    (running.data_dir / "reports" / report / "report.json").unlink()
    assert "is not in the storage" in html(running, f"/probes/{report}", 410)


def test_markup_in_a_report_is_text(running: Any, reports: Any, paired: PairedReport) -> None:
    hostile = paired.model_copy(update={"notes": ["<script>alert(1)</script>"]})
    page = html(running, f"/probes/{reports.store(running.service, hostile, '<b>model</b>')}")
    assert "<script>alert" not in page and "<b>model" not in page


@pytest.mark.slow
def test_another_number_shades_the_grid(stored_reports: dict[str, str], look: Any) -> None:
    page = look().at(f"/probes/{stored_reports['paired']}")
    page.select_option("#metric", "kl_k3")
    expect(page).to_have_url(re.compile("metric=kl_k3"))
    expect(page.locator("#grid-title")).to_contain_text("k3")
    colours = page.locator(".grid td[class]").evaluate_all(
        "all => new Set(all.map(cell => getComputedStyle(cell).backgroundColor)).size"
    )
    assert colours > 2
    page.locator(".grid td.matched a").first.click()
    expect(page).to_have_url(re.compile(r"/probes/report_\w+\?metric=kl_k3#cell-bf16--bf16$"))
    expect(page.locator("#cell-bf16--bf16")).to_be_visible()


@pytest.mark.slow
def test_on_a_phone_and_without_a_script(stored_reports: dict[str, str], look: Any) -> None:
    looked = look(viewport={"width": 390, "height": 800}, java_script_enabled=False)
    page = looked.at(f"/probes/{stored_reports['paired']}")
    page.select_option("#metric", "prob_pearson")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile("metric=prob_pearson"))
    wide = look(viewport={"width": 390, "height": 800})
    for kind in ("paired", "determinism"):
        page = wide.at(f"/probes/{stored_reports[kind]}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
