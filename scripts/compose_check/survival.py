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
ALERT_SECONDS = 180.0
REPORTS = "/v1/reports"


@dataclass(frozen=True)
class Kept:
    """What may not change: every step's analysis, the list of reports, a sample of the past."""

    steps: dict[int, str]
    reports: str
    sample: str

    @classmethod
    def read(cls, client: Client, at: float) -> Kept:
        found = client.query(f'{SERIES}{{run="{RUN}"}}', at)
        return cls(client.steps(), client.text(REPORTS), str([entry["value"] for entry in found]))

    def lost_since(self, before: Kept) -> list[str]:
        lost = [
            f"step {step}" for step, text in before.steps.items() if self.steps.get(step) != text
        ]
        lost += ["the list of reports"] if self.reports != before.reports else []
        lost += ["the series of Prometheus"] if self.sample != before.sample else []
        return lost


def check_survival(stack: Stack, client: Client, report: Report) -> None:
    at = time.time()  # a moment of the past from now on: its sample may not change
    step = max(client.steps())
    for service in SERVICES:
        for way in ("restart", "kill -9"):
            step += 1
            client.push(step)
            before = Kept.read(client, at)
            began = time.monotonic()
            if way == "restart":
                stack.engine.compose("restart", service, profiles=PROFILES)
            else:
                _kill(stack, service, report)
            stack.engine.wait_healthy(service, HEALTHY_SECONDS)
            after = wait_for("what was kept", HEALTHY_SECONDS, lambda: Kept.read(client, at))
            lost = after.lost_since(before)
            seconds = time.monotonic() - began
            there = f"{len(after.steps)} steps, {seconds:.1f} s"
            seen = f"lost: {', '.join(lost)}" if lost else there
            report.say(service, f"{way} loses nothing", not lost, seen)
    wait_for("the alert after it all", ALERT_SECONDS, lambda: ALERT in client.alerts())
    report.say("alertmanager", "holds the alert after it all", True, ALERT)


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
