"""NeMo-RL: the training data of a step → one push.

In: `train_data` of GRPO once it has prev_logprobs, and master_config; the trainer runs in one
process, which has the whole step. Out: nothing; the push goes through the client. Written for
NeMo-RL's main branch of September 2026: BatchedDataDict, nemo_rl/distributed/batched_data_dict.py,
filled in nemo_rl/algorithms/grpo.py. Every column is [sequences, longest], and its first holds
nothing: the loss reads [:, 1:]. NeMo-RL itself is not imported.
"""

from __future__ import annotations

from typing import Any

from driftscope_client.adapters.trainer_batch import (
    BatchAdapter,
    Tensors,
    present,
    rows_of_next_tokens,
    setting,
    settings,
)
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
    return rows_of_next_tokens(columns, mask)


push_batch = BatchAdapter("nemo-rl", batch_tensors, settings_of).push_batch
