"""Pictures of the pages for the docs: scripts/screenshot_pages.py [FOLDER].

Loads the recordings of the demo into a folder that is thrown away, and opens each page in Debian's
Chromium. Out: one PNG per page in FOLDER, docs/images/pages by default.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from driftscope_service.demo.load import load_demo, served
from driftscope_service.experiments.store import ReportRepository
from driftscope_service.service import open_service
from driftscope_service.settings import Settings

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "pages"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1180, 940
KINDS = ("paired", "determinism")


@dataclass(frozen=True, slots=True)
class Shot:
    name: str
    path: str  # with the id of a report by its kind in braces
    scroll_to: str | None = None  # selector of what stands at the top
    dark: bool = False


PAGES = (
    Shot("runs", "/runs"),
    Shot("run", "/runs/stale-weights"),
    Shot("run-dark", "/runs/wrong-temperature?metric=kl_k3", dark=True),
    Shot("step", "/runs/wrong-temperature/steps/36"),
    Shot("step-tokens", "/runs/wrong-temperature/steps/36", scroll_to="#tokens"),
    Shot("step-sequence", "/runs/wrong-temperature/steps/36?order=largest", scroll_to="#worst"),
    Shot("compare-runs", "/compare?a=healthy&b=stale-weights"),
    Shot("compare-steps", "/compare?a=healthy:36&b=wrong-temperature:36", dark=True),
    Shot("probes", "/probes"),
    Shot("probe-paired", "/probes/{paired}"),
    Shot("probe-determinism", "/probes/{determinism}"),
    Shot("kernels", "/kernels?target=torch"),
    Shot("nightly", "/nightly"),
    Shot("jobs", "/jobs"),
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data_dir:
        settings = Settings(port=0, data_dir=Path(data_dir) / "data")
        load_demo(settings, lambda _: None)
        with open_service(settings) as service, served(service, settings) as url:
            with service.database.read() as connection:
                latest = {kind: ReportRepository(connection).latest(kind) for kind in KINDS}
            reports = {kind: report.id for kind, report in latest.items() if report}
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox"]
                )
                for shot in PAGES:
                    address = url + shot.path.format(**reports)
                    _take(browser, address, shot, folder / f"{shot.name}.png")
                browser.close()


def _take(browser: Browser, address: str, shot: Shot, picture: Path) -> None:
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT},
        color_scheme="dark" if shot.dark else "light",
        reduced_motion="reduce",
    )
    page.goto(address)
    page.wait_for_selector("plot-figure:not([data-state])", state="detached")
    if shot.scroll_to is not None:
        page.locator(shot.scroll_to).evaluate("element => element.scrollIntoView()")
    page.screenshot(path=picture)
    page.close()
    print(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
