"""Rules of sampling: what trips them, what does not."""

from __future__ import annotations

from ..recipes import slime, trl, verl
from .row import Row, serve

_ROLLOUT = "actor_rollout_ref.rollout."

ROWS: tuple[Row, ...] = (
    Row(
        "processed-logprobs-truncated",
        trl(vllm_mode="colocate", top_p=0.95),
        trl(vllm_mode="colocate", top_p=0.999),
    ),
    Row(
        "sampling-truncated",
        slime("--rollout-top-k 50"),
        slime("--rollout-top-k -1", "--eval-top-p 0.7"),
    ),
    Row(
        "raw-logprobs-with-temperature",
        verl(f"{_ROLLOUT}temperature=0.7", f"{_ROLLOUT}logprobs_mode=raw_logprobs"),
        verl(f"{_ROLLOUT}temperature=1.0", f"{_ROLLOUT}logprobs_mode=raw_logprobs"),
    ),
    Row(
        "server-with-raw-logprobs",
        trl(vllm_mode="server", temperature=0.7),
        {
            **trl(vllm_mode="server", temperature=0.7),
            **serve("--logprobs-mode processed_logprobs"),
        },
    ),
    Row(
        "penalty-in-sampling",
        trl(repetition_penalty=1.05),
        trl(repetition_penalty=1.0),
    ),
)
