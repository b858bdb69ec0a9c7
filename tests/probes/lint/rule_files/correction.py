"""Rules of the loss: what trips them, what does not."""

from __future__ import annotations

from ..recipes import nemo_rl, slime, trl, verl
from .row import Row

_ACTOR = "actor_rollout_ref.actor."
_ROLLOUT = "actor_rollout_ref.rollout."
_CORRECTION = "algorithm.rollout_correction."


def _async(corrects: str) -> dict[str, str]:
    return nemo_rl(
        f"""
        grpo: {{async_grpo: {{enabled: true, max_trajectory_age_steps: 1}}}}
        loss_fn: {{use_importance_sampling_correction: {corrects}}}
        policy: {{precision: bfloat16, generation: {{backend: vllm}}}}
        """
    )


ROWS: tuple[Row, ...] = (
    Row("stale-and-uncorrected", _async("false"), _async("true")),
    Row(
        "correction-turned-off",
        trl(vllm_importance_sampling_correction=False),
        trl(vllm_importance_sampling_correction=True),
    ),
    Row(
        "quantised-engine-uncorrected",
        verl(f"{_ROLLOUT}quantization=fp8"),
        verl(f"{_ROLLOUT}quantization=fp8", f"{_CORRECTION}rollout_is=token"),
    ),
    Row(
        "quantised-engine-alone",
        slime("--hf-checkpoint /models/Qwen3-4B-FP8", "--use-tis"),
        slime("--hf-checkpoint /models/Qwen3-4B-FP8", "--use-tis", "--fp8-format e4m3"),
    ),
    Row(
        "gap-not-measured",
        slime("--use-rollout-logprobs"),
        slime("--use-rollout-logprobs", "--get-mismatch-metrics"),
    ),
    Row(
        "engine-logprobs-not-returned",
        verl(f"{_ROLLOUT}calculate_log_probs=False"),
        verl(f"{_ROLLOUT}calculate_log_probs=True"),
    ),
    Row(
        "clip-range-below-rounding",
        verl(f"{_ACTOR}clip_ratio=1e-5"),
        verl(f"{_ACTOR}clip_ratio_high=4e-4", f"{_ACTOR}policy_loss.loss_mode=gspo"),
    ),
    Row(
        "very-stale",
        {"async.toml": "max_off_policy_steps = 32\n\n[train.sampling]\ntemperature = 1.0\n"},
        {"async.toml": "max_off_policy_steps = 8\n\n[train.sampling]\ntemperature = 1.0\n"},
    ),
)
