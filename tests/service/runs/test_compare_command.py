"""`driftscope compare`: two runs of a live service, what differs, and rules on either of them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from driftscope_probes.errors import RequestError
from driftscope_service.auth.service_call import ApiError
from driftscope_service.runs.compare_command import compare, distance_ratio

APP = typer.Typer()
APP.command()(compare)
TOKENS = np.linspace(-3, -0.1, 40)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(APP, arguments)


@pytest.fixture
def at(running: Any, url: str, add_step: Any, diagnoses: Any) -> tuple[str, ...]:
    add_step(running, "good", 1, TOKENS, TOKENS - 0.001, diagnoses.at_floor)
    add_step(running, "bad", 6, TOKENS, TOKENS - 0.001, diagnoses.at_floor)
    add_step(running, "bad", 7, TOKENS, TOKENS - 0.04, diagnoses.bug_like)
    return ("--url", url)


def test_two_runs_and_what_the_rules_say_of_them(at: tuple[str, ...]) -> None:
    told = run("good", "bad", *at)
    assert told.exit_code == 0
    assert "A  good, step 1: Rounding alone explains the difference." in told.stdout
    assert "B  bad, step 7: The rollout sampled at temperature 0.61" in told.stdout
    (row,) = [line for line in told.stdout.splitlines() if line.startswith("abs_diff_mean")]
    assert row.split("\t")[1:4] == ["0.00100", "0.0400", "40.0"]

    rules = ("--fail-on", "verdict>=bug_like", "--fail-on", "ratio.abs_diff_mean>1.5")
    held = run("good", "bad", *at, "--json", *rules, "--fail-on", "a.abs_diff_mean>0.01")
    answer = json.loads(held.stdout)
    assert held.exit_code == 1
    assert (answer["a"]["verdict"], answer["b"]["cause"]) == ("at_floor", "temperature_semantics")
    assert answer["ratios"]["abs_diff_mean"] == pytest.approx(40)
    told_of = [(one["where"], one["rule"]) for one in answer["gate"]["held"]]
    assert told_of == [("bad, step 7", rules[1]), ("bad / good", rules[3])]
    assert "fail-on bad / good: ratio.abs_diff_mean>1.5: abs_diff_mean is 40" in held.stderr

    # Whichever of the two it is; and of one step alone, where that is named.
    assert run("bad", "good", *at, "--fail-on", "verdict>=bug_like").exit_code == 1
    assert run("bad", "good", *at, "--fail-on", "b.verdict>=bug_like").exit_code == 0
    assert run("good", "bad:6", *at, "--fail-on", "verdict>=bug_like").exit_code == 0


def test_what_cannot_be_compared(at: tuple[str, ...], running: Any) -> None:
    running.client.put("/v1/runs/empty", json={"model": "m"})
    assert "no complete step" in str(run("good", "empty", *at).exception)
    assert isinstance(run("good", "../x", *at).exception, RequestError)
    assert isinstance(run("good", "gone", *at).exception, ApiError)
    assert run("good", "bad", *at, "--fail-on", "ratio.verdict>=bug_like").exit_code == 2


def test_a_ratio_is_of_distances_from_agreement() -> None:
    def of(name: str, a: float | None, b: float | None) -> float | None:
        return distance_ratio(name, {name: a}, {name: b})

    assert of("prob_pearson", 0.99, 0.98) == pytest.approx(2)
    assert of("diff_mean", -0.1, 0.2) == pytest.approx(2)
    assert of("kl_k3", 0.0, 0.0) == 1.0
    assert of("kl_k3", 0.0, 0.1) == math.inf
    assert of("kl_k3", None, 0.1) is None
