"""miles: the rollout data of a Megatron rank → one push, or a shard of one.

In: `rollout_data` of train_actor, with slime's names. Out: nothing; the push goes through the
client. Written for miles' main branch of September 2026: miles/backends/megatron_utils/actor.py.
Its own --rollout-data-postprocess-path is given the arguments only, so the push is a line beside
it. miles itself is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftscope_client.adapters import slime
from driftscope_client.client import DriftscopeClient


def push_batch(
    client: DriftscopeClient,
    step: int,
    batch: Any,
    *,
    config: Any = None,
    metadata: Mapping[str, object] | None = None,
    shard: tuple[int, int] | None = None,
) -> None:
    """Push one step; `batch` is rollout_data, `step` the rollout's number. config: miles' args.

    shard: (rank, ranks) of data parallelism: every rank has its own responses. Never raises, unless
    the client is strict: data without log_probs are counted as failed.
    """
    described = {"framework": "miles", **(metadata or {})}
    slime.push_batch(client, step, batch, config=config, metadata=described, shard=shard)
