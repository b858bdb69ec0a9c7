"""The report page as the service serves it, in a real browser: its policy lets it draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}"),
]


def test_the_page_draws_and_asks_for_nothing_else(running: Any, url: str) -> None:
    report = running.finished_report(sampling={"seed": 5})
    asked, complaints = list[str](), list[str]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{url}/reports/{report}")
        page.wait_for_selector(".chart svg path", state="attached")
        browser.close()
    # The browser itself asks every site for an icon.
    assert [address for address in asked if "favicon" not in address] == [f"{url}/reports/{report}"]
    assert complaints == []
