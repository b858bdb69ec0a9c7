"""A step from the push over Prometheus and Alertmanager to the webhook; a probe."""

from __future__ import annotations

import json
import time

from scripts.compose_check.client import ALERT, RUN, SERIES, Client, wait_for
from scripts.compose_check.report import Report
from scripts.compose_check.stack import Stack

#: Scrape and discovery every 15 and 30 s; a first scrape may come late by both. Seen: 73 s.
SCRAPE_SECONDS = 300.0
#: `for: 1m`, two evaluations, group_wait of 30 s, and more for a busy machine. Seen: 175 s.
ALERT_SECONDS = 600.0
#: Two loads of torch and vLLM on cores that others use, and the compiler on an empty cache.
PROBE_SECONDS = 1800.0
#: Every engine and trainer dtype once is enough to see the whole path in the container.
PROBE = {
    "model": "tiny-random-llama", "prompts": 2, "engine_dtypes": ["fp32"],
    "trainer_dtypes": ["fp32"], "sampling": {"max_tokens": 8, "seed": 0},
    "engine": {"kv_cache_gib": 0.25},
}  # fmt: skip


def check_passage(stack: Stack, client: Client, report: Report) -> None:
    began = time.monotonic()
    client.push(0)
    report.say("service", "takes a step with a key", set(client.steps()) == {0}, "step 0")
    found = wait_for(
        "the step in Prometheus", SCRAPE_SECONDS, lambda: client.query(f'{SERIES}{{run="{RUN}"}}')
    )
    after = time.monotonic() - began
    value = found[0]["value"][1]
    report.say("prometheus", "shows the run", float(value) == 1.0, f"{value} after {after:.0f} s")
    wait_for("the alert in Alertmanager", ALERT_SECONDS, lambda: ALERT in client.alerts())
    report.say("alertmanager", f"holds {ALERT}", True, f"{time.monotonic() - began:.0f} s")
    line = wait_for("the alert at the webhook", ALERT_SECONDS, lambda: _told(stack))
    labels = json.loads(line)["commonLabels"]
    report.say("receiver", "was told of it", labels.get("run") == RUN,
               f"{labels} after {time.monotonic() - began:.0f} s")  # fmt: skip


def _told(stack: Stack) -> str | None:
    return next((line for line in stack.received() if ALERT in line), None)


def check_probe(client: Client, report: Report) -> None:
    """A paired probe inside the container and its limits: model, vLLM, the kernels' compiler."""
    began = time.monotonic()
    path = client.start_probe(PROBE)
    job = wait_for(
        "the paired probe", PROBE_SECONDS,
        lambda: done if (done := client.job(path))["finished_at"] else None,
    )  # fmt: skip
    seen = job["state"] if job["error"] is None else json.dumps(job["error"])
    report.say("service", "runs a paired probe", job["state"] == "succeeded",
               f"{seen} after {time.monotonic() - began:.0f} s")  # fmt: skip
