"""A jump within the first 20 steps, over the real service and client: the run says where it is.

The kind of TRL #5312: |Δ| rises ninefold at step 3 or 11, within every limit, and stays there.
"""

from __future__ import annotations

import html
import re

import httpx
import numpy as np
import pytest

from driftscope_client import DriftscopeClient

STEPS = 60
BEFORE, AFTER = 0.002, 0.018  # mean |Δ|, nats
BF16 = {"rollout_dtype": "bf16", "trainer_dtype": "bf16"}


def push(address: str, run: str, at: int, steps: int = STEPS) -> None:
    rng = np.random.default_rng(7)
    with DriftscopeClient(address, run=run) as client:
        for step in range(1, steps + 1):
            size = (BEFORE if step < at else AFTER) * np.exp(0.1 * rng.standard_normal())
            lengths = np.maximum(4, rng.poisson(64, 16))
            rollout = -rng.exponential(0.9, lengths.sum())
            # The mean size of a Gaussian of std 1 is 0.8.
            trainer = np.minimum(rollout + size / 0.8 * rng.standard_normal(rollout.size), -1e-6)
            client.push_now(
                step,
                rollout_logprobs=rollout.astype(np.float32),
                trainer_logprobs=trainer.astype(np.float32),
                cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]),
                metadata=BF16,
            )


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 3, 11])
def test_the_step_is_named(running_service: str, at: int) -> None:
    run = f"early-{at}"
    push(running_service, run, at)
    with httpx.Client(base_url=running_service, timeout=60.0) as client:
        drift = client.get(f"/v1/runs/{run}/steps").raise_for_status().json()["drift"]
        page = text_of(client.get(f"/runs/{run}").raise_for_status().text)
    assert drift["state"] == "shifted"
    (event,) = drift["events"]
    assert (event["kind"], event["step"], event["low"], event["high"]) == ("shift", at, at, at)
    moved = {one["metric"] for one in event["numbers"] + event["folded"]}
    assert {"abs_diff_mean", "abs_diff_p99", "kl_k3"} <= moved
    (change,) = drift["metrics"]["abs_diff_mean"]["change_points"]
    assert change["step"] == at and change["found_at"] <= at + 5
    assert change["before"] == pytest.approx(BEFORE, rel=0.2)
    assert change["after"] == pytest.approx(AFTER, rel=0.2)
    assert "no number has moved" not in page
    assert re.search(rf"shifted Within every limit, but mean \|Δ\|.* at step {at}, and", page)


@pytest.mark.slow
def test_a_window_that_was_only_learned_from_is_not_called_unmoved(running_service: str) -> None:
    push(running_service, "early-short", at=100, steps=12)
    with httpx.Client(base_url=running_service, timeout=60.0) as client:
        page = text_of(client.get("/runs/early-short").raise_for_status().text)
    assert "12 steps are too few to tell drift from noise" in page
    assert "no number has moved" not in page
