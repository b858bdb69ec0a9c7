"""Micro-batches of TRL → one push: rows in order, padded to the longest."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from driftscope_client.adapters.trl import Generation, micro_batch


def inputs(rows: int, tokens: int, first: int = 0, **more: Any) -> dict[str, Any]:
    ids = torch.arange(first, first + rows * tokens).view(rows, tokens)
    return {
        "completion_mask": torch.ones(rows, tokens, dtype=torch.int64),
        "completion_ids": ids,
        "prompt_mask": torch.tensor([[0, 1, 1]] * rows),
        "advantages": torch.arange(float(rows)),
        **more,
    }


def batch(given: dict[str, Any], with_entropy: bool = False) -> dict[str, Any]:
    rollout = -given["completion_ids"].float()
    scored = (rollout - 1, rollout.abs())
    return micro_batch(given, rollout, scored, with_entropy=with_entropy)


def test_rows_of_all_batches_in_order() -> None:
    parts = [batch(inputs(2, 3), True), batch(inputs(1, 5, first=100))]
    generation = Generation(step=7, expected=2, batches=parts[:1])
    assert not generation.complete
    generation.batches.append(parts[1])
    assert generation.complete
    tensors = generation.tensors()
    assert tensors["token_ids"].tolist() == [
        [0, 1, 2, 0, 0],
        [3, 4, 5, 0, 0],
        [100, 101, 102, 103, 104],
    ]
    assert tensors["mask"].sum(1).tolist() == [3, 3, 5]
    assert tensors["behavior_version"].tolist() == [7, 7, 7]
    assert tensors["prompt_lengths"].tolist() == [2, 2, 2]
    assert "entropy" not in tensors  # one batch has none
    assert all(len(tensor) == 3 for tensor in tensors.values())


@pytest.mark.parametrize("per_token", [False, True])
def test_advantages_reach_every_token_and_positions_follow_the_prompt(per_token: bool) -> None:
    given = inputs(2, 4)
    if per_token:
        given["advantages"] = given["advantages"].unsqueeze(1).expand(2, 4)
    tensors = batch(given)
    assert tensors["advantages"].tolist() == [[0.0] * 4, [1.0] * 4]
    assert tensors["position_ids"].tolist() == [[2, 3, 4, 5]] * 2


def test_the_trainer_is_the_old_policy_where_trl_has_it_and_tools_are_masked() -> None:
    old, tool = torch.full((2, 3), -9.0), torch.tensor([[1, 0, 1]] * 2)
    tensors = batch(inputs(2, 3, old_per_token_logps=old, tool_mask=tool), True)
    assert tensors["trainer_logprobs"] is old
    assert tensors["mask"].tolist() == tool.tolist()
    assert batch(inputs(2, 3))["trainer_logprobs"].equal(tensors["rollout_logprobs"] - 1)
    assert not tensors["entropy"].requires_grad
