"""Determinism verdicts and nights on /metrics."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from driftscope_probes.nightly.report import Outcome
from driftscope_service.experiments.nightly.metrics import ITEM_STATES
from driftscope_service.experiments.nightly.terminal import state


def samples(running: Any, name: str) -> dict[tuple[str, ...], float]:
    page = running.client.get("/metrics").text
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    }


def test_a_determinism_probe_shows_its_verdicts(running: Any) -> None:
    asked = {"model": "tiny-random-llama", "axes": ["batch_size", "position", "preemption"]}
    job = running.client.post("/v1/probes/determinism", json=asked).json()
    assert running.wait(job["id"])["state"] == "succeeded"
    verdicts = samples(running, "driftscope_determinism_verdict")
    assert {(axis, verdict) for axis, _, _, _, verdict in verdicts} == {
        ("batch_size", "differs"),
        ("position", "equal"),
        ("preemption", "not_run"),
    }
    mismatched = samples(running, "driftscope_determinism_mismatched_tokens")
    assert sorted(mismatched.values()) == [0.0, 24.0]  # nothing for the axis that was not run
    assert sorted(samples(running, "driftscope_determinism_unique_outputs").values()) == [1.0, 2.0]


def test_a_night_shows_how_it_ended(running: Any) -> None:
    assert samples(running, "driftscope_nightly_exit_code") == {}
    job = running.client.post("/v1/probes/nightly").json()
    assert running.wait(job["id"])["state"] == "succeeded"
    assert samples(running, "driftscope_nightly_exit_code") == {(): 0.0}
    items = samples(running, "driftscope_nightly_items")
    assert items == {(state,): float(state == "new") for state in ITEM_STATES}
    finished = samples(running, "driftscope_nightly_last_finished_timestamp_seconds")
    assert finished == samples(running, "driftscope_nightly_last_success_timestamp_seconds") != {}


def test_every_state_of_an_item_has_a_sample() -> None:
    outcomes = [
        Outcome(id="x", verdict=verdict, expected="equal", changed=changed, as_expected=as_expected)
        for verdict in ("equal", "not_run")
        for changed in (None, "better", "worse", "new")
        for as_expected in (True, False)
    ]
    assert {state(outcome).replace(" ", "_") for outcome in outcomes} == set(ITEM_STATES)
