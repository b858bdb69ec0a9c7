"""Case resume: 45 steps, a restart at 40, steps 41 to 45 bad (slime #1695), then healthy.

The service and the client as they are run; the client names its attempts, or it is one of before
that knows none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from driftscope_client import DriftscopeClient
from driftscope_client.transport import RetryPolicy

PATIENCE_S = 120.0
SEQUENCES, LENGTH = 16, 64
HEALTHY, BAD = 0.02, 1.2  # mean |Δ|, nats
BF16 = {"rollout_dtype": "bf16", "trainer_dtype": "bf16"}

Sizes = Callable[[int], float]


def train(
    url: str, run: str, first: int, last: int, seed: int, size: Sizes, **attempt: Any
) -> DriftscopeClient:
    random = np.random.default_rng(seed)
    client = DriftscopeClient(
        url, run=run, queue_size=64, retry=RetryPolicy(attempts=3, first_wait_s=0.05), **attempt
    )
    for step in range(first, last + 1):
        lengths = np.maximum(4, random.poisson(LENGTH, SEQUENCES))
        rollout = -random.exponential(0.9, lengths.sum())
        # The mean of |x| is 0.8 of sigma for a normal x.
        noise = size(step) / 0.8 * random.standard_normal(rollout.size)
        client.push(
            step,
            rollout_logprobs=rollout.astype(np.float32),
            trainer_logprobs=np.minimum(rollout + noise, -1e-6).astype(np.float32),
            cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]),
            metadata=BF16,
        )
    assert client.flush(PATIENCE_S)
    client.close()
    assert (client.pushed, client.dropped, client.failed) == (last - first + 1, 0, 0), (
        client.last_error
    )
    return client


def attempts(url: str, run: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{url}/v1/runs/{run}/attempts").json()["attempts"]
    return found


def steps(url: str, run: str, **params: int) -> dict[str, Any]:
    body: dict[str, Any] = httpx.get(f"{url}/v1/runs/{run}/steps", params=params).json()
    return body


def sizes(body: dict[str, Any]) -> dict[int, float]:
    return {point["step"]: point["values"]["abs_diff_mean"] for point in body["steps"]}


def resumes(body: dict[str, Any]) -> dict[int, dict[str, Any]]:
    events = body["drift"]["events"]
    return {event["step"]: event for event in events if event["kind"] == "resume"}


def bad_at_first(step: int) -> float:
    return BAD if 41 <= step <= 45 else HEALTHY


@pytest.mark.parametrize(
    ("first", "again"),
    [
        pytest.param({"attempt": "job-1"}, {"attempt": "job-2", "resumed_from": 40}, id="named"),
        pytest.param({}, {"resumed_from": 40}, id="resumed_from"),
        pytest.param({}, {}, id="older client"),
    ],
)
def test_what_was_bad_after_the_restart_is_seen(
    running_service: str, first: dict[str, Any], again: dict[str, Any]
) -> None:
    run = f"resume-{len(first)}-{len(again)}"
    train(running_service, run, 1, 45, 1, lambda _: HEALTHY, **first)
    train(running_service, run, 41, 60, 2, bad_at_first, **again)

    one, two = attempts(running_service, run)
    assert (one["steps"], one["current_steps"], one["last_step"]) == (45, 40, 45)
    assert (two["steps"], two["current_steps"], two["resumed_from"]) == (20, 20, 40)
    assert two["opened_by"] == ("client" if again else "step")
    assert (one["refused_steps"], two["refused_steps"]) == (0, 0)

    series = steps(running_service, run)
    of_series = sizes(series)
    assert list(of_series) == list(range(1, 61))
    # Log-probabilities stay negative, which cuts the largest differences: 0.9 of 1.2 are left.
    for step, size in of_series.items():
        assert (0.7 < size < BAD) if 41 <= step <= 45 else (size < 0.03), (step, size)
    # What the first attempt said of the same steps is there as well.
    older = sizes(steps(running_service, run, attempt=1))
    assert list(older) == list(range(1, 46)) and max(older.values()) < 0.03

    event = resumes(series)[41]
    moved = {one["metric"]: one for one in (*event["numbers"], *event["folded"])}
    assert moved["abs_diff_mean"]["returned_at"] == 46
    assert 0.7 < moved["abs_diff_mean"]["after"] < BAD

    page = httpx.get(f"{running_service}/runs/{run}", headers={"accept": "text/html"}).text
    assert "Started 2 times" in page and f'href="/runs/{run}/attempts/1"' in page
    assert "after the resume at step 41" in page


def test_a_run_that_was_resumed_twice(running_service: str) -> None:
    """Three attempts: nothing repeats at the second start, the third goes back behind both."""
    run, url = "resumed-twice", running_service
    train(url, run, 1, 30, 3, lambda _: HEALTHY, attempt="a")
    train(url, run, 31, 60, 4, lambda step: BAD if step <= 34 else HEALTHY, attempt="b")
    train(url, run, 51, 90, 5, lambda _: 3 * HEALTHY, attempt="c", resumed_from=50)

    told = {one["attempt"]: one for one in attempts(url, run)}
    assert [one["id"] for one in told.values()] == ["a", "b", "c"]
    assert [one["resumed_from"] for one in told.values()] == [0, 30, 50]
    assert [one["steps"] for one in told.values()] == [30, 30, 40]
    assert [one["current_steps"] for one in told.values()] == [30, 20, 40]
    known = httpx.get(f"{url}/v1/runs/{run}").json()
    assert (known["steps"], known["received_steps"], known["attempt"]) == (90, 100, 3)
    assert (known["last_step"], known["resumed"]) == (90, True)

    # No step is lost: each is found with what its attempt said.
    series = steps(url, run)
    assert list(sizes(series)) == list(range(1, 91))
    for number, (first, last) in {1: (1, 30), 2: (31, 60), 3: (51, 90)}.items():
        of_attempt = steps(url, run, attempt=number)
        assert list(sizes(of_attempt)) == list(range(first, last + 1))
        lost = [point["step"] for point in of_attempt["steps"] if point["superseded_by"]]
        assert lost == (list(range(51, 61)) if number == 2 else [])
        for step in (first, last):
            path = f"{url}/v1/runs/{run}/steps/{step}"
            answer = httpx.get(path, params={"attempt": number}).json()
            assert answer["attempt"] == number

    # What happened after each resume: once bad and healed, once three times as far for good.
    events = resumes(series)
    assert set(events) == {31, 51}
    after = {
        step: {one["metric"]: one for one in (*event["numbers"], *event["folded"])}
        for step, event in events.items()
    }
    assert after[31]["abs_diff_mean"]["returned_at"] == 35
    assert after[51]["abs_diff_mean"]["returned_at"] is None
    assert after[51]["abs_diff_mean"]["after"] == pytest.approx(3 * HEALTHY, rel=0.15)

    html = {"accept": "text/html"}
    page = httpx.get(f"{url}/runs/{run}", headers=html).text
    assert "Started 3 times" in page and "after the resume at step 31" in page
    assert "after the resume at step 51" in page and "ever since" in page
    for number in (1, 2, 3):
        assert f'href="/runs/{run}/attempts/{number}"' in page
        one = httpx.get(f"{url}/runs/{run}/attempts/{number}", headers=html)
        assert one.status_code == 200 and f"{run}, attempt {number}" in one.text
    drawn = httpx.get(f"{url}/runs/{run}/plots/drift.json").json()
    assert [one["attempt"] for one in drawn["older"]] == [2]
    assert [step for step, _ in drawn["older"][0]["points"]] == list(range(51, 61))
    old_step = httpx.get(f"{url}/runs/{run}/steps/55?attempt=2", headers=html).text
    assert "attempt 3 took its place" in old_step and f'href="/runs/{run}/steps/55"' in old_step
    assert f"/runs/{run}/attempts/2/steps/55/plots/histogram.json" in old_step
    plot = f"{url}/runs/{run}/attempts/2/steps/55/plots/histogram.json"
    assert httpx.get(plot).status_code in (200, 404)  # 404: its tokens are no longer kept
    assert httpx.get(f"{url}/runs/{run}/attempts/4", headers=html).status_code == 404
    assert httpx.get(f"{url}/runs/{run}/steps/55?attempt=x", headers=html).status_code == 422
