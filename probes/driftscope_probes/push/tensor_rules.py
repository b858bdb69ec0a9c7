"""The fixed set of tensors: names, stored dtypes, and what their first dimension counts.

Source: the push format, docs/push-format.md. Whatever is not listed is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

SCHEMA_VERSION = "1"


@dataclass(frozen=True, slots=True)
class TensorRule:
    dtypes: tuple[str, ...]  # safetensors names
    per: Literal["token", "sequence", "limit"]  # limit: sequences + 1 values
    inner_dimensions: int = 0  # after the one (padded: two) that count tokens


_LOGPROBS = TensorRule(("F32", "F16", "BF16"), "token")
_FLOATS = TensorRule(("F32",), "token")
_IDS = TensorRule(("I32",), "token")
_EXPERTS = TensorRule(("U8", "I16"), "token", inner_dimensions=2)

RULES: Mapping[str, TensorRule] = {
    "rollout_logprobs": _LOGPROBS,
    "trainer_logprobs": _LOGPROBS,
    "cu_seqlens": TensorRule(("I32", "I64"), "limit"),
    "mask": TensorRule(("U8", "BOOL"), "token"),
    "token_ids": _IDS,
    "rollout_token_ids": _IDS,
    "advantages": _FLOATS,
    "entropy": _FLOATS,
    "position_ids": _IDS,
    "turn_ids": _IDS,
    "behavior_version": TensorRule(("I32",), "sequence"),
    "routed_experts": _EXPERTS,
    "trainer_routed_experts": _EXPERTS,
}
REQUIRED = ("rollout_logprobs", "trainer_logprobs")

#: How a stored dtype is read. numpy has no bfloat16: its bits are read. A stored bool may be any
#: byte: it is read as a number and checked, because numpy takes only 0 and 1 for booleans.
STORED_AS: Mapping[str, np.dtype[np.generic]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
}
