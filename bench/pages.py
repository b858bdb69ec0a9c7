"""How long the pages of a large step and of a long run take in Chromium, and what they move.

In: nothing; a service on a folder that is thrown away. Out: a line per page and visit: seconds
until the page is there, until its plots are drawn, bytes over the wire. The first visit finds
nothing worked out; each is a new browser profile. Then 500 runs of 60 steps: a line per list, the
median of what the service takes to answer it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from playwright.sync_api import Browser, sync_playwright
from safetensors.numpy import save
from sqlalchemy import insert, select, update

from driftscope_service.demo.load import served
from driftscope_service.service import Service, open_service
from driftscope_service.settings import Settings
from driftscope_service.store import tables

# scripts/ is no package.
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from many_runs import add_runs  # type: ignore[import-not-found]
from page_runs import (  # type: ignore[import-not-found]
    HEALTHY,
    MEDIA_TYPE,
    metadata,
    step_tensors,
)
from screenshot_pages import CHROMIUM  # type: ignore[import-not-found]

TOKENS, LENGTH = 4_000_000, 4_000
STEPS = 10_000
#: The list last: it has the states of all runs worked out.
PATHS = ("/runs/long", "/runs/large/steps/0", "/runs")
VISITS = 2
#: A page of 500 runs has half a second (docs/pages.md).
LISTS = (
    "/runs",
    "/runs?limit=500",
    "/runs?limit=500&sort=worst",
    "/runs?limit=500&text=second&state=stale",
    "/v1/runs?limit=500",
)
ANSWERS = 9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(port=0, data_dir=Path(folder) / "data")
        with open_service(settings) as service, served(service, settings) as url:
            with httpx.Client(base_url=url, timeout=300.0) as client:
                _push(client, "large", _large_step())
                _push(client, "long", step_tensors(HEALTHY, 0))
            _lengthen(service)
            _wait_for_token_files(service)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox"]
                )
                for path in PATHS:
                    for visit in range(VISITS):
                        print(f"{path:24} visit {visit + 1}: {_visit(browser, url + path)}")
                browser.close()
            with service.database.write() as connection:
                add_runs(connection)
            with httpx.Client(base_url=url, timeout=300.0) as client:
                for path in LISTS:
                    print(f"{path:40} {_answered(client, path)}")


def _answered(client: httpx.Client, path: str) -> str:
    taken = []
    for _ in range(ANSWERS):
        start = time.perf_counter()
        answer = client.get(path, headers={"accept": "text/html"}).raise_for_status()
        taken.append(time.perf_counter() - start)
    found = statistics.median(taken)
    return (
        f"{found:.3f} s, slowest of {ANSWERS} {max(taken):.3f} s, {len(answer.text) / 1000:.0f} kB"
    )


def _large_step() -> dict[str, Any]:
    random = np.random.default_rng(0)
    rollout = (-random.exponential(0.5, TOKENS)).astype(np.float32)
    return {
        "rollout_logprobs": rollout,
        "trainer_logprobs": rollout + random.normal(0, 0.02, TOKENS).astype(np.float32),
        "cu_seqlens": np.arange(0, TOKENS + 1, LENGTH),
        "token_ids": random.integers(0, 30_000, TOKENS).astype(np.int32),
    }


def _push(client: httpx.Client, run: str, tensors: dict[str, Any]) -> None:
    client.post(
        f"/v1/runs/{run}/steps/0/logprobs",
        content=save(tensors, metadata("none")),
        headers={"content-type": MEDIA_TYPE},
    ).raise_for_status()


def _lengthen(service: Service) -> None:
    """Ten thousand pushes would take minutes: the rows of the others are copies with noise."""
    random = np.random.default_rng(1)
    of_run = tables.runs.c.name == "long"
    own = ("number", "step", "series", "raw_files", "tokens_file", "kept_bytes")
    with service.database.write() as connection:
        found = connection.execute(select(tables.steps).join(tables.runs).where(of_run)).one()
        first = found._mapping
        same = {name: value for name, value in first.items() if name not in own}
        rows = []
        for step in range(1, STEPS):
            factor = float(np.exp(random.normal(0, 0.1)))
            series = {name: value and value * factor for name, value in first["series"].items()}
            rows.append({**same, "step": step, "series": series, "kept_bytes": 0})
        connection.execute(insert(tables.steps), rows)
        values = {"complete_steps": STEPS, "last_step": STEPS - 1}
        connection.execute(update(tables.runs).where(of_run).values(values))


def _wait_for_token_files(service: Service) -> None:
    while True:
        with service.database.read() as connection:
            raw = select(tables.steps.c.number).where(tables.steps.c.raw_files.is_not(None))
            if connection.execute(raw).first() is None:
                return
        time.sleep(0.1)


def _visit(browser: Browser, address: str) -> str:
    context = browser.new_context()
    page = context.new_page()
    sizes: list[float] = []
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    start = time.perf_counter()
    page.goto(address)
    there = time.perf_counter() - start
    page.wait_for_selector("plot-figure:not([data-state])", state="detached")
    drawn = time.perf_counter() - start
    context.close()
    return f"there {there:.2f} s, drawn {drawn:.2f} s, {sum(sizes) / 1000:.0f} kB"


if __name__ == "__main__":
    main()
