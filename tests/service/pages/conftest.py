"""A real service with three runs, pushed through the API once, and a browser to look at it."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, Response, sync_playwright

from driftscope_service.app import create_app
from driftscope_service.server import listen
from driftscope_service.service import Service, open_service
from driftscope_service.settings import Settings

ROOT = Path(__file__).parents[3]
CHILDREN = ROOT / "tests" / "service" / "jobs" / "children"
CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_S = 60.0
BROWSER_PATIENCE_MS = 10_000
MODEL = "page-model"
#: axe names the nodes of what it is asked for alone: a selector for each of ten thousand table
#: cells that pass takes minutes.
AXE = 'axe.run({resultTypes: ["violations"]}).then(result => result.violations)'
VOCABULARY = 200


def script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Site:
    url: str
    service: Service
    client: httpx.Client

    def html(self, path: str, status: int = 200, **query: Any) -> str:
        answer = self.client.get(path, params=query, headers={"accept": "text/html"})
        assert answer.status_code == status, answer.text[:500]
        return answer.text


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Runs `healthy`, `drifting` and `broken` with 36 steps each. Tests may add, never change."""
    folder = tmp_path_factory.mktemp("pages")
    model = folder / "model"
    model.mkdir()
    (model / "tokenizer.json").write_text(json.dumps(word_tokenizer()))
    settings = Settings(port=0, data_dir=folder / "data", models={MODEL: model}, max_queued_jobs=64)
    # For the whole session: what later tests start as processes still finds what it would without.
    known = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join(filter(None, [str(CHILDREN), str(ROOT / "probes"), known]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", paths)
        with open_service(settings, probe_module="quick_probe") as service:
            with Served(service, settings) as url:
                with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
                    script("page_runs").push_runs(client, model=MODEL)
                    yield Site(url, service, client)


class Served:
    """The service on a real port, as long as the context lasts."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._listener = listen(settings)
        config = uvicorn.Config(create_app(service), log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}
        )

    def __enter__(self) -> str:
        self._thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


def word_tokenizer() -> dict[str, Any]:
    """A tokenizer of 200 words, in the format of tokenizer.json."""
    words = {f"w{place}": place for place in range(VOCABULARY)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    }


@dataclass
class Looked:
    """A page in the browser, and everything it complained about."""

    page: Page
    base: str
    may_fail: bool = False  # answers of 4xx and 5xx are meant
    complaints: list[str] = field(default_factory=list)  # console, uncaught errors, CSP
    transferred: list[Response] = field(default_factory=list)

    def heard(self, kind: str, text: str) -> None:
        # Of the browser, and of htmx where there is no answer at all.
        meant = ("Failed to load resource", "htmx: htmx:error: Failed to fetch")
        expected = self.may_fail and text.startswith(meant)
        if kind in ("error", "warning") and not expected:
            self.complaints.append(text)

    def at(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page

    def drawn(self, path: str) -> Page:
        """Once every plot has been drawn."""
        self.at(path)
        # Not by a function: the policy of the page forbids what Playwright would evaluate for it.
        self.page.wait_for_selector("plot-figure:not([data-state])", state="detached")
        return self.page


Look = Callable[..., Looked]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    # Not longer than a module: its event loop would be in the way of every other test that has one.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def accessible() -> Callable[[Page], None]:
    """Asserts that axe finds nothing by the rules of WCAG 2.2 A and AA and by good practice."""
    axe = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    source = next(Path(axe.__file__).parent.rglob("axe.min.js")).read_text(encoding="utf-8")

    def check(page: Page) -> None:
        page.evaluate(source)
        found = page.evaluate(AXE)
        told = [
            f"{one['id']} ({one['impact']}): {one['help']}: {node['target']} {node['html'][:200]}"
            for one in found
            for node in one["nodes"]
        ]
        assert told == []

    return check


@pytest.fixture
def look(browser: Browser, site: Site) -> Iterator[Look]:
    """`look(**context options)`; at the end no page may have complained."""
    contexts: list[BrowserContext] = []
    every: list[Looked] = []

    def open_(*, may_fail: bool = False, **options: Any) -> Looked:
        context = browser.new_context(**options)
        context.set_default_timeout(BROWSER_PATIENCE_MS)
        contexts.append(context)
        looked = Looked(context.new_page(), site.url, may_fail)
        every.append(looked)
        page = looked.page
        page.on(
            "console",
            lambda message: looked.heard(message.type, message.text),
        )
        page.on("pageerror", lambda error: looked.complaints.append(str(error)))
        page.on("response", lambda response: looked.transferred.append(response))
        return looked

    yield open_
    for context in contexts:
        context.close()
    assert [complaint for one in every for complaint in one.complaints] == []


@pytest.fixture(scope="session")
def reports() -> ModuleType:
    """Reports to put into a store: scripts/page_reports.py."""
    return script("page_reports")


@pytest.fixture(scope="session")
def stored_reports(site: Site, reports: ModuleType) -> dict[str, str]:
    """One report of every kind and two weeks of nights in `site`: the ids by kind."""
    ids: dict[str, str] = reports.store_all(site.service)
    return ids
