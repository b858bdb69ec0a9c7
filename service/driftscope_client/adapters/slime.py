"""slime: the rollout data of a Megatron rank → one push, or a shard of one.

In: `rollout_data` of MegatronTrainRayActor.train_actor, and slime's args; `step` is the rollout's
number, and every rank has its own responses, a shard. Out: nothing; the push goes through the
client. Written for slime's main branch of September 2026: the lists of slime/backends/
megatron_utils/actor.py, one tensor per response. slime itself is not imported.

`--rollout-data-postprocess-path driftscope_client.adapters.slime.postprocess` pushes every step
without a line of code.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from driftscope_client.adapters.trainer_batch import BatchAdapter, Tensors, present, settings
from driftscope_client.client import DriftscopeClient
from driftscope_client.errors import MalformedStep

NEEDED = ("rollout_log_probs", "log_probs", "loss_masks", "tokens")
REMEDIES = {
    "rollout_log_probs": "let the rollout return them: slime's own generate function does, a "
    "custom one fills sample.rollout_log_probs.",
    "log_probs": "set --get-mismatch-metrics with a --custom-tis-function-path, so that the actor "
    "scores every rollout before it trains (with one optimizer step per rollout, and with "
    "--use-rollout-logprobs, it does not); and push from the last pipeline stage, which has them.",
}
SETTINGS = {
    "model": ("hf_checkpoint",),
    "rollout_dtype": ("sglang_dtype",),
    "temperature": ("rollout_temperature",),
    "top_p": ("rollout_top_p",),
    "top_k": ("rollout_top_k",),
}
#: slime has no other.
FIXED = {"engine": "sglang"}
#: Megatron's flags; without either it computes in float32.
FLAGS = {"bf16": "bf16", "fp16": "fp16"}
#: SGLang takes the model's own dtype, which the arguments do not say.
AUTO = "auto"


def postprocess(args: Any, rollout_id: int, rollout_data: Mapping[str, Any]) -> None:
    """slime's hook for what follows the log-probabilities. The client is that of DRIFTSCOPE_URL,
    DRIFTSCOPE_RUN and DRIFTSCOPE_API_KEY; every data-parallel rank pushes its shard."""
    from megatron.core import mpu

    if not mpu.is_pipeline_last_stage() or mpu.get_tensor_model_parallel_rank():
        return
    if mpu.get_context_parallel_rank():
        return
    rank, ranks = mpu.get_data_parallel_rank(), mpu.get_data_parallel_world_size()
    shard = (rank, ranks) if ranks > 1 else None
    push_batch(_client(), rollout_id, rollout_data, config=args, shard=shard)


@cache
def _client() -> DriftscopeClient:
    return DriftscopeClient()


def settings_of(config: Any) -> dict[str, object]:
    """What slime's arguments say of both sides; {} without them."""
    told = settings(config, SETTINGS)
    if told.get("rollout_dtype") == AUTO:
        del told["rollout_dtype"]
    if config is not None:
        chosen = [dtype for flag, dtype in FLAGS.items() if getattr(config, flag, False)]
        told["trainer_dtype"] = chosen[0] if chosen else "fp32"
    return told


def batch_tensors(batch: Mapping[str, Any]) -> Tensors:
    """One entry per response, under the push format's names. Raises MalformedStep."""
    present(batch, NEEDED, REMEDIES)
    masks = batch["loss_masks"]
    _check_whole(batch["log_probs"], masks)
    lengths = [len(mask) for mask in masks]
    tensors: Tensors = {
        "rollout_logprobs": list(batch["rollout_log_probs"]),
        "trainer_logprobs": list(batch["log_probs"]),
        "mask": list(masks),
        "token_ids": [
            tokens[len(tokens) - length :]
            for tokens, length in zip(batch["tokens"], lengths, strict=True)
        ],
        "prompt_lengths": [
            len(tokens) - length for tokens, length in zip(batch["tokens"], lengths, strict=True)
        ],
    }
    if "advantages" in batch:
        tensors["advantages"] = list(batch["advantages"])
    return tensors


def _check_whole(scored: Any, masks: Any) -> None:
    for index, (own, mask) in enumerate(zip(scored, masks, strict=True)):
        if len(own) < len(mask):
            raise MalformedStep(
                f"log_probs has {len(own)} tokens in response {index}, loss_masks has "
                f"{len(mask)}: context parallelism has cut the response.",
                remedy="gather rollout_log_probs, log_probs and advantages first, each with "
                "slime.backends.megatron_utils.cp_utils.all_gather_with_cp(one, total_length, "
                "response_length), on every rank of the group; then push_batch on one of them.",
            )


push_batch = BatchAdapter("slime", batch_tensors, settings_of, FIXED).push_batch
