"""From an empty machine to the answer: a run goes wrong, the alert fires, its link explains it."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftscope_service.numbers import metric_words

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
RUN, HEALTHY = "wrong-temperature", "healthy"
ALERT = "RunDivergenceHigh"
#: Beyond its `for`: a scrape, an evaluation of each group of rules, and a slow machine.
SLACK_S = 20.0


def wait_of(alert: str) -> float:
    """`for` of the rule; its minutes are seconds here."""
    rules = yaml.safe_load((ROOT / "dashboards/prometheus/rules/alerts.rules.yml").read_text())
    (found,) = (
        rule["for"]
        for group in rules["groups"]
        for rule in group["rules"]
        if rule.get("alert") == alert
    )
    assert found.endswith("m")
    return float(found[:-1])


@pytest.fixture(scope="module")
def seen(replayed: Callable[[tuple[str, ...]], Any]) -> Any:
    return replayed((RUN, HEALTHY))


def test_a_drifting_run_raises_the_alert_whose_link_explains_it(
    seen: Any, eventually: Callable[[Callable[[], Any]], Any]
) -> None:

    def in_state(state: str) -> list[Any]:
        return [
            alert
            for alert in seen.prometheus.alerts()
            if alert["labels"]["alertname"] == ALERT
            and alert["labels"]["run"] == RUN
            and alert["state"] == state
        ]

    eventually(lambda: in_state("pending") or in_state("firing"))
    began = time.monotonic()
    (alert, *_) = eventually(lambda: in_state("firing"))
    assert time.monotonic() - began < wait_of(ALERT) + SLACK_S
    link = alert["annotations"]["page_url"]
    assert link == f"{str(seen.service.base_url).rstrip('/')}/runs/{RUN}"
    page = seen.service.get(link, headers={"accept": "text/html"})
    assert page.status_code == 200
    # The page says what the alert says: which numbers are beyond their limits.
    assert 'class="state bad">beyond limits' in page.text
    [table] = re.findall(r'aria-label="Limits crossed, table">(.*?)</table>', page.text, re.DOTALL)
    fired = {one["labels"]["metric"] for one in in_state("firing")}
    assert fired
    rows = [html.unescape(re.sub("<[^>]*>", "", row)) for row in re.findall(r"<th.*?</th>", table)]
    for metric in fired:
        assert metric_words.label(metric) in rows, metric
    assert (ROOT / alert["annotations"]["runbook_url"]).is_file()


def test_a_healthy_run_raises_none(
    seen: Any, eventually: Callable[[Callable[[], Any]], Any]
) -> None:
    eventually(lambda: seen.prometheus.query(f'driftscope_run_info{{run="{HEALTHY}"}}'))
    time.sleep(wait_of(ALERT) + 3.0)
    firing = [alert for alert in seen.prometheus.alerts() if alert["state"] == "firing"]
    runs = {alert["labels"]["run"] for alert in firing if alert["labels"].get("run")}
    # The other run's alert shows that one would fire here.
    assert runs == {RUN}
