"""Series of runs: the numbers of the last step, totals, distribution, limits, drift, and bounds."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, update

from driftscope_probes.mismatch.thresholds import THRESHOLDS, Precision
from driftscope_service.metrics.metric_names import RUN_SAMPLES
from driftscope_service.metrics_page import MetricsPage, page_of
from driftscope_service.runs.metrics import EXPORTED_EDGES
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.store.tables import runs

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
ROLLOUT = np.array([-0.1, -0.5, -1.0, -2.0, -0.3])


def shifted(by: float) -> Any:
    return ROLLOUT - by * np.array([0.0, 0.01, 0.02, 0.4, 1.0])


def test_every_number_is_that_of_the_last_step(running: Any, add_step: Any, page: Any) -> None:
    add_step(running, "r", 7, ROLLOUT, shifted(1.0))
    # It arrives later, and is not the last one.
    add_step(running, "r", 3, ROLLOUT, shifted(0.1))
    expected = add_step(running, "r", 8, ROLLOUT, shifted(0.5))["comparison"]
    found = page(running)
    assert found.value("run_last_step", run="r") == 8
    for sample in RUN_SAMPLES:
        labels = dict(zip(sample.metric.labels[1:], sample.more_labels, strict=True))
        value = found.value(sample.metric.name.removeprefix("driftscope_"), run="r", **labels)
        assert value == expected.get(sample.source), sample.metric.name


def test_verdict_and_causes_are_those_of_the_last_step(
    running: Any, add_step: Any, page: Any, diagnoses: Any
) -> None:
    add_step(running, "r", 1, ROLLOUT, shifted(0.1), diagnoses.at_floor)
    found = page(running)
    assert found.value("run_verdict", run="r") == 1
    assert found.value("run_excess_ratio", run="r") == 0.93
    assert found.value("run_cause_confidence", run="r", cause="bf16_rounding_tail") == 0.97
    add_step(running, "r", 2, ROLLOUT, shifted(1.0), diagnoses.bug_like)
    found = page(running)
    assert found.value("run_verdict", run="r") == 3
    causes = {"temperature_semantics": 0.931, "rope_config": 0.04, "norm_eps": 0.011}
    # Of a cause that is no longer one there is no series.
    assert found.labels("run_cause_confidence", "cause") == set(causes)
    for cause, confidence in causes.items():
        assert found.value("run_cause_confidence", run="r", cause=cause) == confidence


def test_a_cause_that_the_catalogue_does_not_have_gets_no_series(
    running: Any, add_step: Any, page: Any, diagnoses: Any
) -> None:
    strange = dataclasses.replace(diagnoses.bug_like.causes[0], name="of_another_version")
    said = dataclasses.replace(diagnoses.bug_like, causes=(strange, *diagnoses.bug_like.causes[1:]))
    add_step(running, "r", 0, ROLLOUT, shifted(1.0), said)
    assert page(running).labels("run_cause_confidence", "cause") == {"rope_config", "norm_eps"}


def test_without_an_answer_unexplained_is_sure(
    running: Any, add_step: Any, page: Any, diagnoses: Any
) -> None:
    add_step(running, "u", 0, ROLLOUT, shifted(1.0), diagnoses.unexplained)
    add_step(running, "n", 0, ROLLOUT, shifted(1.0), diagnoses.not_comparable)
    add_step(running, "old", 0, ROLLOUT, shifted(1.0))
    found = page(running)
    assert found.value("run_cause_confidence", run="u", cause="unexplained") == 1
    assert found.value("run_cause_confidence", run="u", cause="lm_head_precision") == 0.31
    assert found.value("run_verdict", run="n") == 4
    assert found.value("run_excess_ratio", run="n") is None
    assert found.value("run_verdict", run="old") is None
    assert found.labels("run_verdict", "run") == {"u", "n"}


def test_totals_follow_and_are_the_same_after_a_restart(
    run_service: Any, add_step: Any, page: Any
) -> None:
    with run_service() as running:
        add_step(running, "r", 0, ROLLOUT, [*shifted(0.1)[:4], np.nan])
        add_step(running, "s", 0, ROLLOUT, shifted(0.1))
        assert page(running).value("run_nonfinite_tokens_total", run="r") == 1
        # One number after the other, and then two between two scrapes.
        for step in (1, 2, 3):
            add_step(running, "r", step, ROLLOUT, [*shifted(0.1)[:3], -5.0, np.inf])
            add_step(running, "r", 100 + step, [-0.01] * 4, [-3.0] * 4)
            if step != 2:
                kept = page(running)
    with run_service() as running:
        fresh = page(running)
    for found in (kept, fresh):
        assert found.value("run_steps_total", run="r") == 7
        assert found.value("run_compared_tokens_total", run="r") == 4 + 3 * 4 + 3 * 4
        assert found.value("run_nonfinite_tokens_total", run="r") == 4
        assert found.value("run_confident_disagreements_total", run="r") == 12
        assert found.value("run_steps_total", run="s") == 1


def test_the_distribution_counts_every_token_once(running: Any, add_step: Any, page: Any) -> None:
    random = np.random.default_rng(3)
    rollout = -random.exponential(1.0, 500)
    trainer = rollout + random.normal(0.0, 10.0 ** random.uniform(-8, 1.5, 500))
    trainer[:20] = rollout[:20]
    add_step(running, "r", 12, rollout, trainer)
    found = page(running)
    differences = np.abs(trainer - rollout)
    name = "run_token_logprob_abs_diff_nats"
    assert len(EXPORTED_EDGES) == 25
    for edge in (0.0, *(edge for _, edge in EXPORTED_EDGES), math.inf):
        text = "+Inf" if math.isinf(edge) else repr(edge)
        expected = int(np.count_nonzero(differences <= edge))
        assert found.value(f"{name}_bucket", run="r", le=text) == expected
    assert found.value(f"{name}_gcount", run="r") == 500
    assert found.value(f"{name}_gsum", run="r") == pytest.approx(float(differences.sum()))
    [exemplar] = [sample.exemplar for sample in found.samples if sample.exemplar]
    assert exemplar.labels == {"page": "/runs/r/steps/12"}
    assert exemplar.value == pytest.approx(float(differences.max()))


def test_a_long_name_has_no_exemplar_but_all_the_rest(
    running: Any, add_step: Any, page: Any
) -> None:
    run = "r" * 128
    add_step(running, run, 2**53 - 1, ROLLOUT, shifted(1.0))
    found = page(running)
    assert not any(sample.exemplar for sample in found.samples)
    assert found.value("run_token_logprob_abs_diff_nats_gcount", run=run) == 5


def test_limits_are_those_of_the_dtypes(running: Any, add_step: Any, page: Any) -> None:
    precisions: dict[str, Precision] = {"bf16": "bf16", "fp32": "fp32", "fp8": "unknown"}
    for dtype, precision in precisions.items():
        metadata = {"rollout_dtype": dtype, "trainer_dtype": "fp32"}
        document = add_step(running, dtype, 1, ROLLOUT, shifted(0.1), **metadata)
        found = page(running)
        assert found.labels("run_info", "precision") >= {precision}
        crossed = {(each["metric"], each["direction"]) for each in document["crossed_limits"]}
        for limit in THRESHOLDS:
            labels = {"run": dtype, "metric": limit.metric, "direction": limit.direction}
            assert found.value("run_limit", **labels) == limit.values[precision]
            over = (limit.metric, limit.direction) in crossed
            assert found.value("run_over_limit", **labels) == over
            used = found.value("run_limit_used_ratio", **labels)
            assert used is None or (used > 1) == over


def test_drift_comes_with_a_later_scrape(
    running: Any, add_step: Any, page: Any, eventually: Any
) -> None:
    for step in range(60):
        noise = 1.0 + 0.02 * (step % 3)
        add_step(running, "r", step, ROLLOUT, shifted(noise * (0.01 if step < 40 else 0.05)))
    eventually(lambda: page(running).value("run_drift_state", run="r", state="shifted") == 1)
    found = page(running)
    assert found.value("run_drift_state", run="r", state="steady") == 0
    assert found.value("run_metric_drift", run="r", metric="abs_diff_mean", state="shifted") == 1
    assert found.value("run_last_change_step", run="r", metric="abs_diff_mean") == 40
    ratio = found.value("run_last_change_ratio", run="r", metric="abs_diff_mean")
    assert ratio == pytest.approx(5.0, rel=0.05)
    assert found.value("run_last_change_step", run="r", metric="lag_mean") is None


def test_a_trend_is_a_ratio(running: Any, add_step: Any, page: Any, eventually: Any) -> None:
    for step in range(80):
        add_step(running, "r", step, ROLLOUT, shifted(0.01 * 1.01**step * (1 + 0.01 * (step % 2))))
    eventually(lambda: page(running).value("run_drift_state", run="r", state="trending") == 1)
    found = page(running).value("run_trend_per_100_steps_ratio", run="r", metric="abs_diff_mean")
    assert found == pytest.approx(1.01**100 - 1, rel=0.1)


def test_runs_beyond_the_cap_and_idle_ones_have_no_series(
    run_service: Any, add_step: Any, page: Any
) -> None:
    with run_service(metrics_max_runs=2, metrics_idle_seconds=60.0) as running:
        for run in ("old", "a", "b", "c"):
            add_step(running, run, 0, ROLLOUT, shifted(0.1))
        long_ago = datetime.now(UTC) - timedelta(seconds=61)
        with running.service.database.write() as connection:
            connection.execute(update(runs).where(runs.c.name == "old").values(updated_at=long_ago))
        found = page(running)
        assert found.labels("run_info", "run") == {"b", "c"}
        states = {state: found.value("runs", state=state) for state in (
            "active", "beyond_cap", "idle")}  # fmt: skip
        assert states == {"active": 2, "beyond_cap": 1, "idle": 1}
        # A run that wakes up has all of its numbers again.
        add_step(running, "old", 1, ROLLOUT, shifted(0.1))
        found = page(running)
        assert found.labels("run_info", "run") == {"old", "c"}
        assert found.value("run_steps_total", run="old") == 2
        assert found.value("run_compared_tokens_total", run="old") == 10


def test_a_run_without_steps_is_described(running: Any, page: Any) -> None:
    with running.service.database.write() as connection:
        RunRepository(connection).put("r", {"model": "x" * 200, "engine": 'v"llm\\'})
    found = page(running)
    [info] = [sample for sample in found.samples if sample.name == "driftscope_run_info"]
    assert (len(info.labels["model"]), info.labels["engine"]) == (128, 'v"llm\\')
    assert (info.labels["precision"], info.labels["trainer_dtype"]) == ("unknown", "")
    assert found.value("run_steps_total", run="r") == 0
    assert found.value("run_last_step", run="r") is None


def test_a_description_that_changes_is_shown(running: Any, add_step: Any, page: Any) -> None:
    add_step(running, "r", 0, ROLLOUT, shifted(0.1))
    page(running)
    with running.service.database.write() as connection:
        RunRepository(connection).put("r", {"model": "later"})
    found = page(running)
    assert found.labels("run_info", "model") == {"later"}
    assert found.value("run_tokens", run="r") == 5


def test_the_end_of_a_run_is_shown_and_taken_back(running: Any, add_step: Any, page: Any) -> None:
    add_step(running, "r", 0, ROLLOUT, shifted(0.1))
    for finished in (False, True, False):
        running.client.put("/v1/runs/r", json={"state": "finished" if finished else "running"})
        assert page(running).value("run_finished", run="r") == finished


def test_what_is_kept_between_scrapes_is_what_a_fresh_page_has(
    run_service: Any, add_step: Any
) -> None:
    def lines(page: MetricsPage) -> list[str]:
        text = page.render(OPENMETRICS)[0].decode()
        return [line for line in text.splitlines() if "driftscope_run" in line]

    with run_service(metrics_max_runs=3) as running:
        kept = page_of(running.client.app)

        def check() -> None:
            fresh = MetricsPage(running.service)
            fresh.stop()  # drift comes later, and is none of this
            assert lines(kept) == lines(fresh)

        kept.stop()
        for run in ("a", "b", "c"):
            add_step(running, run, 1, ROLLOUT, shifted(0.1))
            check()
        add_step(running, "b", 2, ROLLOUT, shifted(9.0))
        check()
        for fields in ({"model": 'a "name"'}, {"rollout_dtype": "fp32"}, {"state": "finished"}):
            assert running.client.put("/v1/runs/a", json=fields).status_code == 200
            check()
        # It pushes another one out, which then comes back.
        add_step(running, "d", 1, ROLLOUT, shifted(0.2))
        check()
        add_step(running, "c", 5, [-1.0, -2.0], [-1.0, np.nan], rollout_dtype="fp32")
        check()
        assert {'run="c"', 'run="d"'} <= set(re.findall(r'run="."', "".join(lines(kept))))


def test_as_many_queries_for_many_runs_as_for_one(running: Any, add_step: Any) -> None:
    def queries() -> int:
        counted: list[str] = []

        def count(_: Any, __: Any, statement: str, *___: Any) -> None:
            # Other threads of the service look for work meanwhile.
            if threading.current_thread() is threading.main_thread():
                counted.append(statement)

        engine = running.service.database._engine
        event.listen(engine, "before_cursor_execute", count)
        page_of(running.client.app).render("")
        event.remove(engine, "before_cursor_execute", count)
        return len(counted)

    add_step(running, "one", 0, ROLLOUT, shifted(0.1))
    one = queries()
    for number in range(20):
        add_step(running, f"run-{number}", 0, ROLLOUT, shifted(0.1))
    assert 5 < one == queries()


def test_promtool_accepts_a_page_with_runs(running: Any, add_step: Any) -> None:
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not on PATH (Debian package: prometheus)")
    for step in range(2):
        add_step(running, "r", step, ROLLOUT, shifted(0.1))
    done = subprocess.run(
        [path, "check", "metrics"],
        input=running.client.get("/metrics").text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
