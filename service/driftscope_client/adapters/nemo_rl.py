"""NeMo-RL: the training data of a step → one push.

In: `train_data` of GRPO once it has prev_logprobs. Out: nothing; the push goes through the client.
Written for NeMo-RL's main branch of September 2026: BatchedDataDict, nemo_rl/distributed/
batched_data_dict.py, filled in nemo_rl/algorithms/grpo.py. Every column is [sequences, longest],
and its first holds nothing: the loss reads [:, 1:]. NeMo-RL itself is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftscope_client.adapters.trainer_batch import (
    Tensors,
    present,
    push_tensors,
    rows,
    setting,
    settings,
    spans,
)
from driftscope_client.client import DriftscopeClient
from driftscope_client.errors import MalformedStep

NEEDED = ("generation_logprobs", "prev_logprobs", "token_mask", "sample_mask", "input_ids")
REMEDIES = {
    "prev_logprobs": "push after policy.get_logprobs, where train_data has prev_logprobs.",
}
ON_POLICY = (
    "set loss_fn.force_on_policy_ratio=false: with it, NeMo-RL leaves the policy's forward out."
)
GENERATION = ("policy", "generation")
SETTINGS = {
    "model": ("policy", "model_name"),
    "trainer_dtype": ("policy", "precision"),
    "engine": (*GENERATION, "backend"),
    "temperature": (*GENERATION, "temperature"),
    "top_p": (*GENERATION, "top_p"),
    "top_k": (*GENERATION, "top_k"),
}
#: vllm_cfg.precision; sglang_cfg.dtype.
ENGINE_DTYPES = ("precision", "dtype")


def push_batch(
    client: DriftscopeClient,
    step: int,
    batch: Any,
    *,
    config: Any = None,
    metadata: Mapping[str, object] | None = None,
    shard: tuple[int, int] | None = None,
) -> None:
    """Push one step; `batch` is train_data. config: master_config.

    The trainer runs in one process, which has the whole step. Never raises, unless the client is
    strict: data without prev_logprobs, or with zeros in their place, are counted as failed.
    """
    described = {
        "framework": "nemo-rl",
        "weights_version": step,
        **settings_of(config),
        **(metadata or {}),
    }
    push_tensors(client, step, lambda: batch_tensors(batch), metadata=described, shard=shard)


def settings_of(config: Any) -> dict[str, object]:
    """What NeMo-RL's configuration says of both sides; {} without one."""
    told = settings(config, SETTINGS)
    own = setting(config, *GENERATION, f"{told.get('engine')}_cfg")
    for name in ENGINE_DTYPES:
        told |= settings(own, {"rollout_dtype": (name,)})
    return told


def batch_tensors(batch: Any) -> Tensors:
    """One entry per sequence, under the push format's names. Raises MalformedStep."""
    present(batch, NEEDED, REMEDIES)
    mask = batch["token_mask"][:, 1:] * batch["sample_mask"][:, None]
    trainer = batch["prev_logprobs"][:, 1:]
    if mask.any() and not trainer[mask != 0].any():
        raise MalformedStep("prev_logprobs are zeros: nothing was scored.", remedy=ON_POLICY)
    columns = {
        "rollout_logprobs": batch["generation_logprobs"][:, 1:],
        "trainer_logprobs": trainer,
        "token_ids": batch["input_ids"][:, 1:],
    }
    if "advantages" in batch and batch["advantages"].shape == batch["input_ids"].shape:
        columns["advantages"] = batch["advantages"][:, 1:]
    # The column of the first response token is that of the last prompt token.
    prompts = [span.start + 1 for span in spans(mask) if span is not None]
    return {**rows(columns, mask), "prompt_lengths": prompts}
