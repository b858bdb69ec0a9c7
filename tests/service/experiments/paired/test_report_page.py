"""The HTML report in a real browser: offline, drawn, usable by keyboard, and without its script."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Download, Locator, Page, sync_playwright

from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired.html import render
from driftscope_service.numbers.metric_words import number

CHROMIUM = Path("/usr/bin/chromium")
PHONE = {"width": 400, "height": 800}
PLOTS = ("histogram", "by-probability", "along-response", "by-length")
#: Characters of SVG path data in one colour: a mark of the legend has fewer, any data have more.
LEAST_DRAWN = 100

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}"),
]


@dataclass
class Opened:
    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)  # console and uncaught errors

    def plot(self, name: str) -> Locator:
        return self.page.locator(f"#plot-{name}")

    def curves(self, name: str) -> set[str]:
        """Colours in which the plot draws data, not only a mark of its legend."""
        found: list[tuple[str, str, str]] = self.plot(name).evaluate(
            """figure => [...figure.querySelectorAll('.chart svg path')].map(
                path => ['fill', 'stroke', 'd'].map(name => path.getAttribute(name) ?? ''))"""
        )
        drawn: Counter[str] = Counter()
        for fill, stroke, data in found:
            for colour in {fill, stroke}:
                drawn[colour] += len(data)
        return {colour for colour, amount in drawn.items() if amount > LEAST_DRAWN}


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path, report: dict[str, Any]) -> Iterator[Open]:
    contexts = []

    def open_(shown: dict[str, Any] = report, **options: Any) -> Opened:
        file = tmp_path / "report.html"
        file.write_text(render(PairedReport.read(shown)), encoding="utf-8")
        context = browser.new_context(offline=True, accept_downloads=True, **options)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.goto(file.as_uri())
        return opened

    yield open_
    for context in contexts:
        context.close()


def saved(opened: Opened, button: Locator) -> Download:
    with opened.page.expect_download() as download:
        button.click()
    return download.value


def text_of(download: Download) -> str:
    return Path(download.path()).read_bytes().decode("utf-8")


def colours(opened: Opened, *labels: str) -> set[str]:
    """Series colours of the cells, as the style sheet has them."""
    chips = [opened.page.locator(".chip", has_text=label).locator("i") for label in labels]
    read = "chip => getComputedStyle(chip).getPropertyValue('--colour')"
    return {chip.evaluate(read) for chip in chips}


def test_it_opens_without_a_request_or_a_complaint(open_report: Open) -> None:
    opened = open_report()
    opened.page.locator("[data-select=all]").click()
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    opened.page.wait_for_timeout(200)
    assert [url.split(":")[0] for url in opened.requests] == ["file"]
    assert opened.complaints == []


def test_a_connection_would_be_refused(open_report: Open) -> None:
    """The policy holds even where the network is there: a planted request reaches nobody."""
    reached: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        opened = open_report()
        opened.page.context.set_offline(False)
        for code in ("fetch(url).catch(() => 'refused')", "{ new Image().src = url }"):
            opened.page.evaluate(f"url => {code}", f"http://127.0.0.1:{server.server_port}/leak")
        opened.page.wait_for_timeout(300)
        server.shutdown()
    assert reached == []
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_plot_is_drawn_in_the_colours_of_the_selected_cells(
    open_report: Open, scheme: str
) -> None:
    opened = open_report(color_scheme=scheme)
    chosen = colours(opened, "bf16 × bf16", "fp16 × fp16", "fp32 × fp32")
    other = colours(opened, "bf16 × fp32")
    assert len(chosen) == 3
    for name in PLOTS:
        assert chosen <= opened.curves(name)
        assert not other & opened.curves(name)
        assert "(nats)" in opened.plot(name).locator(".chart svg").inner_html()


def test_the_selection_decides_what_is_drawn(open_report: Open) -> None:
    opened = open_report()
    new = colours(opened, "bf16 × fp32")
    opened.page.get_by_role("checkbox", name="bf16 × fp32").check(force=True)
    for name in PLOTS:
        assert new <= opened.curves(name)
        label = opened.plot(name).locator(".chart").get_attribute("aria-label")
        assert label is not None and "bf16 × fp32" in label
    opened.page.locator("[data-select=none]").click()
    for name in PLOTS:
        assert not new & opened.curves(name)
        assert opened.plot(name).locator(".aside").inner_text() == "Select at least one cell."
    opened.page.locator("[data-select=first]").click()
    assert opened.page.locator(".chip :checked").count() == 3
    assert opened.complaints == []


def test_the_keyboard_reaches_and_changes_the_selection(open_report: Open) -> None:
    opened = open_report()
    box = opened.page.get_by_role("checkbox", name="bf16 × bf16")
    for _ in range(200):
        opened.page.keyboard.press("Tab")
        if box.evaluate("box => box === document.activeElement"):
            break
    gone = colours(opened, "bf16 × bf16")
    opened.page.keyboard.press("Space")
    assert not box.is_checked()
    assert not gone & opened.curves("histogram")


def test_the_scale_switch_redraws(open_report: Open) -> None:
    opened = open_report()
    plot = opened.plot("by-probability")
    before = plot.locator(".chart svg").inner_html()
    plot.get_by_role("radio", name="linear").check(force=True)
    assert plot.locator(".chart svg").inner_html() != before
    assert opened.complaints == []


def test_another_number_shades_the_grid(open_report: Open, report: dict[str, Any]) -> None:
    opened = open_report()
    opened.page.locator("#metric").focus()
    opened.page.locator("#metric").select_option("kl_k3")
    assert "k3" in opened.page.locator("#grid-title").inner_text()
    shown = opened.page.locator("table.grid .mean").all_inner_texts()
    assert shown == [number(cell["comparison"]["kl_k3"]) for cell in report["grid"]]
    assert opened.page.evaluate("document.activeElement.value") == "kl_k3"
    assert opened.complaints == []


def test_a_cell_of_the_grid_leads_to_its_numbers(open_report: Open) -> None:
    opened = open_report()
    opened.page.get_by_role("link", name="fp16 × fp32").click()
    assert opened.page.get_by_role("table").get_by_text("mean |Δ| over tokens").first.is_visible()


def test_csv_holds_every_bucket_of_the_selected_cells(
    open_report: Open, report: dict[str, Any]
) -> None:
    opened = open_report()
    download = saved(opened, opened.plot("histogram").get_by_role("button", name="CSV"))
    assert download.suggested_filename == "smollm2-135m-histogram-buckets.csv"
    rows = list(csv.DictReader(io.StringIO(text_of(download), newline="")))
    for cell in (report["grid"][place] for place in (0, 4, 8)):
        names = (cell["engine_dtype"], cell["trainer_dtype"])
        own = [row for row in rows if (row["engine_dtype"], row["trainer_dtype"]) == names]
        histogram = cell["profiles"]["abs_diff_histogram"]
        counts = [int(row["tokens"]) for row in own]
        assert counts[2:-1] == histogram["counts"]
        assert (counts[0], counts[-1]) == (histogram["zero"], histogram["above"])
        assert sum(counts) == cell["comparison"]["tokens"]
        assert [float(row["abs_diff_up_to_nats"]) for row in own[2:-1]] == histogram["edges"][1:]
    assert len({(row["engine_dtype"], row["trainer_dtype"]) for row in rows}) == 3


@pytest.mark.parametrize(
    ("plot", "button", "columns"),
    [
        ("by-probability", "CSV, points", "set rollout_prob diff_nats"),
        ("by-probability", "CSV, bins", "rollout_prob_from rollout_prob_below tokens"),
        ("along-response", "CSV", "token_from token_below tokens abs_diff_mean_nats"),
        ("by-length", "CSV", "length_tokens seq_logratio_nats"),
    ],
)
def test_every_plot_gives_its_data(
    open_report: Open, report: dict[str, Any], plot: str, button: str, columns: str
) -> None:
    opened = open_report()
    text = text_of(saved(opened, opened.plot(plot).get_by_role("button", name=button, exact=True)))
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    assert head[: 2 + len(columns.split())] == ["engine_dtype", "trainer_dtype", *columns.split()]
    assert len(rows) > 3
    assert all(len(row) == len(head) for row in rows)


def test_json_is_the_profile_itself(open_report: Open, report: dict[str, Any]) -> None:
    opened = open_report()
    opened.page.locator("[data-select=all]").click()
    button = opened.plot("along-response").get_by_role("button", name="JSON")
    cells = json.loads(text_of(saved(opened, button)))
    assert [cell["by_response_index"] for cell in cells] == [
        cell["profiles"]["by_response_index"] for cell in report["grid"]
    ]


def test_the_report_and_given_prompts_can_be_saved(
    open_report: Open, report: dict[str, Any]
) -> None:
    prompts = ["one", [{"role": "user", "content": "zwei\n</script>"}]]
    given = {**report, "request": {**report["request"], "prompts": prompts}}
    opened = open_report(given)
    saved_report = saved(opened, opened.page.locator("[data-report]"))
    assert json.loads(text_of(saved_report)) == given
    lines = text_of(saved(opened, opened.page.locator("[data-prompts]"))).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"prompt": "one"},
        {"messages": prompts[1]},
    ]


def test_a_plot_has_its_data_as_a_table(open_report: Open, report: dict[str, Any]) -> None:
    opened = open_report()
    details = opened.plot("by-length").locator("details.data")
    details.locator("summary").click()
    rows = details.locator("tbody tr")
    rows.first.wait_for()  # the table is written when it is first opened
    assert rows.count() == 3 * len(report["grid"][0]["profiles"]["sequences"]["length"])
    first = report["grid"][0]["profiles"]["sequences"]["seq_logratio"][0]
    assert number(first) in rows.first.inner_text()


def test_without_script_the_verdict_and_all_tables_stand(
    open_report: Open, report: dict[str, Any]
) -> None:
    opened = open_report(java_script_enabled=False)
    page = opened.page
    assert page.get_by_text(report["reading"]["sentence"]).is_visible()
    assert page.locator("table.grid .cell").count() == 9
    assert (
        page.locator("table.grid")
        .get_by_text(number(report["grid"][0]["comparison"]["abs_diff_mean"]), exact=True)
        .is_visible()
    )
    page.locator(".cell-details summary").first.click()
    assert page.locator(".cell-details table").first.is_visible()
    assert page.locator("#headroom table").first.is_visible()
    assert page.get_by_text("drawn by this page’s own script").is_visible()
    assert not page.locator("#plot-histogram").is_visible()


def test_markup_in_a_report_is_never_run(open_report: Open, make_report: Any) -> None:
    evil = "</script><img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
    report = make_report(("bf16",), ("bf16",), model=evil)
    report["notes"] = [evil]
    opened = open_report(report)
    opened.plot("histogram").locator(".chart").hover()
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("h1").inner_text() == evil
    assert opened.complaints == []


def test_it_fits_a_phone(open_report: Open) -> None:
    opened = open_report(viewport=PHONE)
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    assert opened.page.locator("table.grid").bounding_box()["width"] <= PHONE["width"]  # type: ignore[index]


def test_bitwise_equal_sides_draw_empty_plots_without_a_complaint(
    open_report: Open, make_report: Any
) -> None:
    report = make_report(("bf16",), ("bf16",), lengths=(3, 9))
    histogram = report["grid"][0]["profiles"]["abs_diff_histogram"]
    profiles = report["grid"][0]["profiles"]
    histogram |= {"zero": 12, "counts": [0] * len(histogram["counts"])}
    for name in ("by_response_index", "by_rollout_prob"):
        profiles[name]["abs_diff_mean"] = [0.0 for _ in profiles[name]["counts"]]
    for points in profiles["scatter"].values():
        points["diff"] = [0.0 for _ in points["diff"]]
    profiles["sequences"]["seq_logratio"] = [0.0, 0.0]
    opened = open_report(report)
    assert opened.complaints == []
    assert "12 exactly 0" in opened.plot("histogram").locator(".aside").inner_text()
    assert "every Δ is exactly 0" in opened.plot("along-response").locator(".aside").inner_text()


def test_numbers_are_written_as_on_the_server(browser: Browser) -> None:
    source = files("driftscope_service.pages").joinpath("static", "plots", "number.js")
    script = source.read_text(encoding="utf-8").replace("export ", "")
    values = [0, 7, 512, 7810, 0.0123456, 0.00099949, 0.00099951, 3.58e-11, 7.5, 123.4, 65504.4]
    values += [99999.7, 1.5e300, -0.00146, 0.1, 1 / 3]
    page = browser.new_page()
    code = f"values => {{ {script}; return values.map(number) }}"
    assert page.evaluate(code, values) == [number(value) for value in values]
    page.close()
