"""Each container restarted and killed in the middle: what was acknowledged is there afterwards."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from scripts.compose_check.client import ALERT, RUN, SERIES, Client, wait_for
from scripts.compose_check.engine import CommandFailed
from scripts.compose_check.report import Report
from scripts.compose_check.stack import (
    HEALTHY_SECONDS,
    PROFILES,
    RESTART_SECONDS,
    SERVICES,
    Stack,
)

#: Prometheus evaluates every 15 s and tells Alertmanager again once a minute.
ALERT_SECONDS = 600.0
#: A scrape that began before the moment looked at may still be written after it.
SCRAPE_MARGIN_SECONDS = 45.0
#: Of the samples before that moment that are compared; Prometheus takes one each 15 s.
SAMPLES = "10m"
WAYS = ("restart", "kill -9")


@dataclass(frozen=True)
class Kept:
    """What may not change: the analysis of every step, every report, the samples of the past."""

    steps: dict[int, str]
    reports: dict[str, str]
    samples: tuple[str, ...]  # time and value of each, raw

    @classmethod
    def read(cls, client: Client, at: float) -> Kept:
        found = client.query(f'{SERIES}{{run="{RUN}"}}[{SAMPLES}]', at)
        samples = tuple(str(sample) for series in found for sample in series["values"])
        return cls(client.steps(), client.reports(), samples)

    def absent(self) -> list[str]:
        """What there is none of: of that, a crash could lose nothing, and would show nothing."""
        there = {"step": self.steps, "report": self.reports, "sample": self.samples}
        return [name for name, kept in there.items() if not kept]

    def lost_since(self, before: Kept) -> list[str]:
        lost = [
            f"step {step}" for step, text in before.steps.items() if self.steps.get(step) != text
        ]
        lost += [
            f"report {name}"
            for name, text in before.reports.items()
            if self.reports.get(name) != text
        ]
        lost += [f"sample {sample}" for sample in before.samples if sample not in self.samples]
        return lost

    def __str__(self) -> str:
        return f"{len(self.steps)} steps, {len(self.reports)} reports, {len(self.samples)} samples"


def check_survival(stack: Stack, client: Client, report: Report) -> None:
    at = time.time() - SCRAPE_MARGIN_SECONDS
    first = Kept.read(client, at)
    absent = first.absent()
    seen = f"no {' and no '.join(absent)}" if absent else first
    report.say("all", "a step, a report and a sample are there to be lost", not absent, seen)
    step = max(first.steps)
    for service in SERVICES:
        for way in WAYS:
            step += 1
            _check_one(stack, client, report, at, step, service, way)
    wait_for("the alert after it all", ALERT_SECONDS, lambda: ALERT in client.alerts())
    report.say("alertmanager", "holds the alert after it all", True, ALERT)


def _check_one(
    stack: Stack, client: Client, report: Report, at: float, step: int, service: str, way: str
) -> None:
    client.push(step)
    before = Kept.read(client, at)
    began = time.monotonic()
    if way == "restart":
        stack.engine.compose("restart", service, profiles=PROFILES)
    else:
        _kill(stack, service, report)
    stack.engine.wait_healthy(service, HEALTHY_SECONDS)
    after = wait_for("what was kept", HEALTHY_SECONDS, lambda: Kept.read(client, at))
    seconds = time.monotonic() - began
    lost = after.lost_since(before)
    seen = f"lost: {', '.join(lost)}" if lost else f"{after}, {seconds:.1f} s"
    report.say(service, f"{way} loses nothing", not lost, seen)


def _kill(stack: Stack, service: str, report: Report) -> None:
    """SIGKILL to the program, as the kernel does where memory ends; the engine starts it again."""
    first = int(stack.engine.inspect(service)["State"]["Pid"])
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    os.kill(int(children[0]) if children else first, signal.SIGKILL)
    began = time.monotonic()
    while time.monotonic() - began < RESTART_SECONDS:
        state = stack.engine.inspect(service)["State"]
        if state["Running"] and int(state["Pid"]) != first:
            report.say(service, "comes back by itself", True, f"{time.monotonic() - began:.1f} s")
            return
        time.sleep(0.5)
    report.say(service, "comes back by itself", False, f"not in {RESTART_SECONDS:.0f} s")
    try:
        stack.engine.podman("start", stack.engine.container(service))
    except CommandFailed as error:
        report.say(service, "can be started again", False, error)
