"""Every query of every dashboard, run by a real Prometheus on the real service's metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from driftscope_dashboards.generate import BOARDS, FOLDER

pytestmark = pytest.mark.slow
INTERVAL = "20s"
#: Why a query may rightly have no result on the recordings. Key: a part of the query.
MAY_BE_EMPTY = {
    "ALERTS{": "an annotation: no alert of that kind fires on healthy data",
    "changes(": "an annotation: nothing changed while the test looked",
    "delta(": "an annotation: no weights were synced while the test looked",
    "driftscope_run_last_change": "only runs whose level changed have one",
    'kind=~"(trainer|rollout)_.*"': "only sides with wrong values have a series",
    'verdict="REFUTED"': "only refuted kernels have a series",
    'verdict="differs"': "only axes that differ have a series",
    'state="trending"': "only runs that trend",
    "driftscope_run_sequence_logratio_slope": "needs sequences of different length",
    "driftscope_run_fresh_logprob_abs_diff": "needs fresh tokens in the last step",
    "driftscope_run_staleness_ratio": "needs stale and fresh tokens in one step",
}


def queries() -> Iterator[Any]:
    for name in sorted(BOARDS):
        board = json.loads((FOLDER / f"{name}.json").read_text())
        for panel in board["panels"]:
            for target in panel.get("targets") or []:
                yield pytest.param(target["expr"], id=f"{name}: {panel['title']} {target['refId']}")
        for entry in board["annotations"].get("list", []):
            yield pytest.param(entry["expr"], id=f"{name}: annotation {entry['name']}")


def filled(expr: str) -> str:
    """As Grafana would send it with every variable at All."""
    expr = re.sub(r"\$__(rate_)?interval", INTERVAL, expr)
    return re.sub(r"\$\w+", ".*", expr)


@pytest.mark.parametrize("expr", queries())
def test_a_query_has_a_result(expr: str, observed: Any) -> None:
    found = observed.prometheus.query(filled(expr))
    if not any(part in expr for part in MAY_BE_EMPTY):
        assert found, filled(expr)


def test_every_exception_is_still_needed() -> None:
    asked = [param.values[0] for param in queries()]
    assert [part for part in MAY_BE_EMPTY if not any(part in expr for expr in asked)] == []


def test_variables_have_values(observed: Any) -> None:
    for name in sorted(BOARDS):
        board = json.loads((FOLDER / f"{name}.json").read_text())
        for variable in board["templating"]["list"]:
            if variable["type"] != "query":
                continue
            metric, label = re.fullmatch(  # type: ignore[union-attr]
                r"label_values\((.+), (\w+)\)", variable["query"]
            ).groups()
            found = observed.prometheus.query(f"count by ({label}) ({filled(metric)})")
            assert found, (name, variable["name"])


def test_a_query_of_a_metric_that_is_not_there_is_noticed(observed: Any) -> None:
    assert observed.prometheus.query("driftscope_jbos") == []


def test_the_exemplar_leads_to_a_page(
    observed: Any, eventually: Callable[[Callable[[], Any]], Any]
) -> None:
    def exemplars() -> list[Any]:
        answer = observed.prometheus.client.get(
            "/api/v1/query_exemplars",
            params={
                "query": "driftscope_run_token_logprob_abs_diff_nats_bucket",
                "start": "2026-01-01T00:00:00Z",
                "end": "2100-01-01T00:00:00Z",
            },
        )
        found: list[Any] = answer.json()["data"]
        return found

    page = eventually(exemplars)[0]["exemplars"][0]["labels"]["page"]
    assert observed.service.get(page, headers={"accept": "text/html"}).status_code == 200
