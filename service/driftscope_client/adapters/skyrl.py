"""SkyRL: the training input of a step → one push.

In: a TrainingInputBatch after fwd_logprobs_values_reward, and the trainer's cfg; the trainer runs
in one process, which has the whole step. Out: nothing; the push goes through the client. Written
for SkyRL 0.3.0: class TrainingInputBatch, skyrl/backends/skyrl_train/training_batch.py, made in
skyrl/train/dataset/preprocess.py; the columns of the response are aligned on the right. SkyRL
itself is not imported.
"""

from __future__ import annotations

from typing import Any

from driftscope_client.adapters.trainer_batch import (
    BatchAdapter,
    Tensors,
    present,
    rows,
    settings,
    spans,
)

NEEDED = ("rollout_logprobs", "action_log_probs", "loss_mask", "sequences")
REMEDIES = {
    "rollout_logprobs": "set generator.sampling_params.logprobs=1.",
    "action_log_probs": "push after fwd_logprobs_values_reward. Where the loss takes the rollout's "
    "own, SkyRL leaves the policy's forward out: any setting of trainer.algorithm."
    "off_policy_correction brings it back.",
}
ENGINE = ("generator", "inference_engine")
SAMPLING = ("generator", "sampling_params")
SETTINGS = {
    "model": ("trainer", "policy", "model", "path"),
    "engine": (*ENGINE, "backend"),
    "rollout_dtype": (*ENGINE, "model_dtype"),
    "temperature": (*SAMPLING, "temperature"),
    "top_p": (*SAMPLING, "top_p"),
    "top_k": (*SAMPLING, "top_k"),
}
MIXED_PRECISION = {
    "trainer_dtype": ("trainer", "policy", "fsdp_config", "mixed_precision", "param_dtype"),
}
#: Both FSDP's autocast and Megatron's model run in it where it is true.
BF16 = {"bf16": ("trainer", "bf16")}


def settings_of(config: Any) -> dict[str, object]:
    """What SkyRL's configuration says of both sides; {} without one."""
    told = settings(config, SETTINGS)
    if settings(config, BF16).get("bf16"):
        told["trainer_dtype"] = "bf16"
    return {**told, **settings(config, MIXED_PRECISION)}


def batch_tensors(batch: Any) -> Tensors:
    """One entry per sequence, under the push format's names. Raises MalformedStep."""
    present(batch, NEEDED, REMEDIES)
    mask, sequences = batch["loss_mask"], batch["sequences"]
    longest = mask.shape[1]
    columns = {
        "rollout_logprobs": batch["rollout_logprobs"],
        "trainer_logprobs": batch["action_log_probs"],
        "token_ids": sequences[:, -longest:],
    }
    if batch.get("advantages") is not None:
        columns["advantages"] = batch["advantages"]
    tensors: Tensors = rows(columns, mask)
    attended, response = batch.get("attention_mask"), batch.get("response_mask")
    if attended is not None and response is not None:
        prompts = (attended.sum(1) - response.sum(1)).tolist()
        kept = [row for row, span in enumerate(spans(mask)) if span is not None]
        tensors["prompt_lengths"] = [int(prompts[row]) for row in kept]
    return tensors


push_batch = BatchAdapter("skyrl", batch_tensors, settings_of).push_batch
