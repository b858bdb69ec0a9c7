"""Rules of the way of weights: what trips them, what does not."""

from __future__ import annotations

from ..recipes import nemo_rl, slime, trl, verl
from .row import Row

_MODEL = "actor_rollout_ref.model."


def _in_flight(recomputed: str) -> dict[str, str]:
    return nemo_rl(
        f"""
        grpo:
          async_grpo:
            enabled: true
            in_flight_weight_updates: true
            recompute_kv_cache_after_weight_updates: {recomputed}
        policy: {{generation: {{backend: vllm}}}}
        """
    )


ROWS: tuple[Row, ...] = (
    Row("cache-of-older-weights", _in_flight("false"), _in_flight("true")),
    Row(
        "tokens-of-several-weights",
        slime("--partial-rollout"),
        slime("--partial-rollout", "--mask-offpolicy-in-partial-rollout"),
    ),
    Row(
        "engine-updated-seldom",
        slime("--update-weights-interval 2", program="train_async.py"),
        slime("--update-weights-interval 2", "--use-tis", program="train_async.py"),
    ),
    Row(
        "adapter-merged-in-half-precision",
        trl(use_peft=True, lora_r=16, lora_dropout=0.0),
        verl(f"{_MODEL}lora_rank=16", f"+{_MODEL}lora.merge=False"),
    ),
    Row(
        "adapter-scaled-to-nothing",
        verl(f"{_MODEL}lora_rank=16", f"{_MODEL}lora_alpha=0"),
        verl(f"{_MODEL}lora_rank=0", f"{_MODEL}lora_alpha=0"),
    ),
    Row(
        "adapter-trained-on-the-head",
        verl(f"{_MODEL}lora_rank=16", f"{_MODEL}target_modules='[q_proj,lm_head]'"),
        verl(f"{_MODEL}lora_rank=16", f"{_MODEL}target_modules=all-linear"),
    ),
)
