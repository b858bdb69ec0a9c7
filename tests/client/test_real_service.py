"""The client against the service as it is run: what it answers is what the trainer gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from driftscope_client import DriftscopeClient, DriftscopeError

PATIENCE_S = 60.0

Connect = Callable[..., DriftscopeClient]


def test_the_answer_is_the_analysis(
    running_service: str, connect: Connect, step: dict[str, Any]
) -> None:
    client = connect(running_service, run="a")
    answer = client.push_now(1, metadata={"model": "m"}, **step)
    assert (answer["state"], answer["tokens"], answer["sequences"]) == ("complete", 6, 2)
    assert answer["comparison"]["abs_diff_mean"] == pytest.approx(0.01, rel=1e-5)
    assert answer["metadata"]["model"] == "m"
    again = client.push_now(1, metadata={"model": "m"}, **step)
    assert again["content_sha256"] == answer["content_sha256"]
    client.begin_attempt("a")
    assert client.push_now(1, metadata={"model": "m"}, **step)["attempt"] == 2
    with pytest.raises(DriftscopeError) as error:
        client.push_now(1, metadata={"model": "other"}, **step)
    assert error.value.status == 409


def test_a_run_ends_with_its_last_step(
    running_service: str, connect: Connect, step: dict[str, Any]
) -> None:
    client = connect(running_service, run="ended")
    client.push(1, **step)
    assert client.finish()
    known = httpx.get(f"{running_service}/v1/runs/ended").json()
    assert (known["state"], known["steps"]) == ("finished", 1)


def test_in_the_background_in_every_layout(running_service: str, connect: Connect) -> None:
    rollout = [[-0.5, -1.0], [-2.0]]
    trainer = [[-0.5, -1.25], [-2.5]]
    padded, mask = torch.zeros(2, 2, dtype=torch.bfloat16), torch.tensor([[1, 1], [1, 0]])
    padded[mask.bool()] = torch.tensor([-0.5, -1.0, -2.0], dtype=torch.bfloat16)
    answers: list[dict[str, Any]] = []
    client = connect(running_service, run="b", on_result=answers.append)
    client.push(1, rollout_logprobs=rollout, trainer_logprobs=trainer)
    client.push(2, rollout_logprobs=padded, trainer_logprobs=padded - 0.25, mask=mask)
    assert client.flush(PATIENCE_S)
    assert (client.pushed, client.failed) == (2, 0), client.last_error
    assert [answer["comparison"]["abs_diff_mean"] for answer in answers] == [0.25, 0.25]


def test_what_the_service_refuses_the_trainer_survives(
    running_service: str, connect: Connect, step: dict[str, Any]
) -> None:
    client = connect(running_service, run="c")
    client.push(1, **step, cached_tokens=[3, 9], prompt_lengths=[3, 8])
    assert client.flush(PATIENCE_S)
    assert (client.refused, client.failed) == (1, 0)
    assert "cached_tokens is 9 for sequence 1, whose prompt_lengths is 8" in str(client.last_error)


def test_sides_with_other_token_ids_are_answered(
    running_service: str, connect: Connect, step: dict[str, Any]
) -> None:
    client = connect(running_service, run="ids")
    plain = client.push_now(1, **step)
    other = client.push_now(2, **step, rollout_token_ids=np.arange(6) + 1)
    assert other["comparison"] == plain["comparison"]
    alone = {name: tensor for name, tensor in step.items() if name != "token_ids"}
    assert client.push_now(3, **alone, rollout_token_ids=np.arange(6))["tokens"] == 6


def test_more_than_255_experts_and_tokens_without_a_route(
    running_service: str, connect: Connect, step: dict[str, Any]
) -> None:
    ids = np.arange(12).reshape(6, 2, 1) * 46
    missing = ids.copy()
    missing[-1] = -1
    client = connect(running_service, run="moe")
    client.push_now(1, **step, routed_experts=ids, trainer_routed_experts=missing)
    # One rank may see few experts and another many: each sends the smallest dtype of its own.
    for shard, routes in enumerate((ids % 64, ids, missing)):
        client.push_shard(2, shard, 3, **step, routed_experts=routes)
    assert client.flush(PATIENCE_S)
    assert (client.pushed, client.failed) == (4, 0), client.last_error
    assert httpx.get(f"{running_service}/v1/runs/moe/steps/2").json()["sequences"] == 6


def test_ranks_in_any_order_are_one_step(
    running_service: str, connect: Connect, step: dict[str, Any]
) -> None:
    ranks = [connect(running_service, run="d") for _ in range(3)]
    for place in (2, 0, 1):
        ranks[place].push_shard(7, place, 3, **step)
    assert all(rank.flush(PATIENCE_S) for rank in ranks)
    assert [(rank.pushed, rank.failed) for rank in ranks] == [(1, 0)] * 3
    stored = httpx.get(f"{running_service}/v1/runs/d/steps/7").json()
    assert (stored["shards"], stored["sequences"], stored["tokens"]) == (3, 6, 18)
    assert ranks[0].complete(7)["content_sha256"] == stored["content_sha256"]
