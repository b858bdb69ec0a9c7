"""Two folders of captured tensors, whoever wrote them: what every reader gives.

In: files of a folder. Out: per forward pass the pieces that were captured, by key; a key is that of
a place (`3.q_proj`), of packed tensors (`3.qkv_proj`) or of what is known of the rows (`tokens`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from driftscope_probes.explain.sites import Place

#: What a step may hold besides places: facts of its rows. [rows] or [batch, tokens], integers.
TOKENS: Final = "tokens"
POSITIONS: Final = "positions"
MASK: Final = "attention_mask"  # 0: padding
CU_SEQLENS: Final = "cu_seqlens"  # [sequences + 1]
FACTS: Final = frozenset({TOKENS, POSITIONS, MASK, CU_SEQLENS})
#: Not of rows but of scored tokens: compared as it stands.
LOGPROB: Final = Place(None, "logprob")
WEIGHTS: Final = "weights."

#: Names of tensors between ops, as `explain.sites` lists them.
PLACE_NAMES: Final = frozenset(
    (
        "embedding residual_in attention_norm q_proj k_proj v_proj q_norm k_norm q_rotary k_rotary "
        "attention o_proj attention_output_norm residual_mid mlp_norm gate_proj up_proj activation "
        "down_proj router top_k_weights top_k_experts experts mlp_output_norm residual_out "
        "final_norm logits logprob"
    ).split()
)
#: Several places in one tensor: q, k and v side by side (vLLM, SGLang), q, k and v of one group of
#: heads after the other (Megatron), gate before up.
QKV: Final = "qkv_proj"
GROUPED_QKV: Final = "linear_qkv"
GATE_UP: Final = "gate_up_proj"
PACKED_NAMES: Final = frozenset({QKV, GROUPED_QKV, GATE_UP})

#: What msprobe counts of a tensor.
NUMBERS: Final = ("Max", "Min", "Mean", "Norm")


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor of one forward pass, not read yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What msprobe keeps of a tensor whose elements it does not keep."""

    shape: tuple[int, ...]
    dtype: str
    numbers: Mapping[str, float]  # by msprobe's names: Max, Min, Mean, Norm
    crc: str | None  # CRC-32 of the bytes, where it was asked for


@dataclass(frozen=True, slots=True)
class RawDump:
    """A folder as a reader found it."""

    form: str  # in words: "driftscope's capture", "msprobe"
    steps: tuple[Mapping[str, Piece], ...]  # in the order in which they ran
    weights: Mapping[str, Piece] = field(default_factory=dict)  # by Hugging Face's parameter names
    config: Mapping[str, Any] = field(default_factory=dict)  # the model's config.json
    uncovered: tuple[str, ...] = ()  # names that are no place of ours
    statistics: Mapping[Place, tuple[Statistics, ...]] = field(default_factory=dict)  # by step


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
