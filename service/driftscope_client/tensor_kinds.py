"""The push format's tensors as the client writes them: what one entry stands for, and its dtype.

Source: docs/push-format.md. The service checks everything again; a test holds both lists equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

SCHEMA_VERSION = "1"

Per = Literal["token", "sequence", "limit"]
Holds = Literal["logprob", "number", "integer", "flag", "expert"]

#: In the order in which they are written: the same step always gives the same bytes.
TENSORS: Mapping[str, tuple[Per, Holds]] = {
    "rollout_logprobs": ("token", "logprob"),
    "trainer_logprobs": ("token", "logprob"),
    "cu_seqlens": ("limit", "integer"),
    "mask": ("token", "flag"),
    "token_ids": ("token", "integer"),
    "rollout_token_ids": ("token", "integer"),
    "advantages": ("token", "number"),
    "entropy": ("token", "number"),
    "position_ids": ("token", "integer"),
    "turn_ids": ("token", "integer"),
    "behavior_version": ("sequence", "integer"),
    "routed_experts": ("token", "expert"),
    "trainer_routed_experts": ("token", "expert"),
}
REQUIRED = ("rollout_logprobs", "trainer_logprobs")
