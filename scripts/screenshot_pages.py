"""Pictures of the pages for the docs: scripts/screenshot_pages.py [FOLDER].

Starts a service on a folder that is thrown away, pushes the runs of page_runs.py, and opens each
page in Debian's Chromium. Out: one PNG per page in FOLDER, docs/images/pages by default.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from page_reports import store_all
from page_runs import TEXT, push_runs
from playwright.sync_api import Browser, sync_playwright
from tokenizers import Tokenizer

from driftscope_service.app import create_app
from driftscope_service.server import listen
from driftscope_service.service import Service, open_service
from driftscope_service.settings import Settings
from driftscope_service.web.step.token_text import tokenizer_path

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "pages"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1180, 940
#: Its tokenizer is read if `driftscope model fetch` has made it; ids are shown otherwise.
MODEL = "smollm2-135m"
START_S = 60.0
PROSE = """To find the number of apples that remain, subtract what was sold from what was there.
In the morning the shop had 48 apples. By noon a third of them had been sold, so 48 / 3 = 16 were
gone and 32 were left. In the afternoon half of the rest was sold: 32 / 2 = 16. What remains is
32 - 16 = 16. We check: 16 + 16 + 16 = 48, which is what the shop began with. The answer is 16."""


@dataclass(frozen=True, slots=True)
class Shot:
    name: str
    path: str  # with the id of a report by its kind in braces
    scroll_to: str | None = None  # selector of what stands at the top
    dark: bool = False


PAGES = (
    Shot("runs", "/runs"),
    Shot("run", "/runs/drifting"),
    Shot("run-dark", "/runs/broken?metric=kl_k3", dark=True),
    Shot("step", "/runs/broken/steps/35"),
    Shot("step-tokens", "/runs/broken/steps/35", scroll_to="#tokens"),
    Shot("step-sequence", "/runs/broken/steps/35?order=largest", scroll_to="#worst"),
    Shot("compare-runs", "/compare?a=healthy&b=broken"),
    Shot("compare-steps", "/compare?a=healthy:34&b=broken:35", dark=True),
    Shot("probes", "/probes"),
    Shot("probe-paired", "/probes/{paired}"),
    Shot("probe-determinism", "/probes/{determinism}"),
    Shot("kernels", "/kernels?at=torch/linear/eager/bf16/2"),
    Shot("nightly", "/nightly"),
    Shot("jobs", "/jobs"),
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data_dir:
        settings = Settings(port=0, data_dir=Path(data_dir) / "data")
        with open_service(settings) as service, served(service, settings) as url:
            with httpx.Client(base_url=url, timeout=60.0) as client:
                push_runs(client, model=MODEL, text=_token_ids())
            reports = store_all(service)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox"]
                )
                for shot in PAGES:
                    address = url + shot.path.format(**reports)
                    _take(browser, address, shot, folder / f"{shot.name}.png")
                browser.close()


def _token_ids() -> Sequence[int]:
    path = tokenizer_path(MODEL, {})
    if path is None:
        return TEXT
    encoded: Sequence[int] = Tokenizer.from_file(str(path)).encode(PROSE).ids
    return encoded


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


@contextmanager
def served(service: Service, settings: Settings) -> Iterator[str]:
    """The address of the service on a real port."""
    listener = listen(settings)
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        deadline = time.monotonic() + START_S
        while not server.started:
            assert time.monotonic() < deadline, "the service did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
