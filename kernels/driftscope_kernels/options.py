"""Rounding points at which engines differ, as options of the ops; what two engines choose; and the
sizes that fix the order of additions.

In: nothing, and nothing heavy is imported. Presets fix the rounding points, not all bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Columns of logits held at a time. Part of the contract: it fixes where partial sums are merged.
VOCABULARY_TILE = 512


# Keys per tile, counted from position 0 of the sequence. One tile of scores of six queries stays in
# the first-level cache with 64 keys and values; pages of 16 and more divide it or are multiples.
KV_TILE = 64


TP_SEGMENTS = 8  # serves tensor parallelism over 1, 2, 4 and 8 ranks


# Long enough that adding a block to the total costs little next to the block itself, short enough
# that sequences padded to a multiple of it waste little.
ROW_BLOCK = 64


#: What the checker says of a kernel. STATIC is for kernels whose compiled code is read: no atomics,
#: one binary for every batch size.
VerdictName = Literal["PROVED", "NOT_REFUTED", "STATIC", "INCONCLUSIVE", "REFUTED"]


LANES = 16  # one AVX-512 register of float32; narrower machines keep two or four of theirs


@dataclass(frozen=True, slots=True)
class NormOptions:
    """RMSNorm, alone and with the residual added."""

    # "after_cast": x·rsqrt(…) is rounded to the dtype, then times the weight and rounded again;
    # "before_cast": times the weight in float32, rounded once.
    weight_multiply: Literal["after_cast", "before_cast"] = "after_cast"
    # What add_rms_norm normalises: x + residual in float32, or that sum rounded to the dtype (which
    # is what the residual stream keeps either way).
    norm_reads: Literal["float32_sum", "rounded_sum"] = "float32_sum"


@dataclass(frozen=True, slots=True)
class SwigluOptions:
    # "rounded": silu(gate) is rounded to the dtype before it is multiplied by up; "float32": not.
    silu: Literal["rounded", "float32"] = "rounded"


@dataclass(frozen=True, slots=True)
class RotaryOptions:
    # The tables of cosines and sines: rounded to the dtype of x first, or taken as given.
    table: Literal["rounded", "as_given"] = "rounded"
    # o₁ = x₁·cos − x₂·sin: "fused" computes fma(−x₂, sin, x₁·cos) in float32, "unfused" rounds both
    # products to float32; either is rounded to the dtype once. "model_dtype" rounds both products
    # and the sum to the dtype.
    arithmetic: Literal["fused", "unfused", "model_dtype"] = "fused"


@dataclass(frozen=True, slots=True)
class LogprobOptions:
    # Logits before softmax: rounded to the dtype of the hidden states, or the float32 accumulator.
    logits: Literal["rounded", "float32"] = "rounded"


@dataclass(frozen=True, slots=True)
class Preset:
    """The choices of one engine."""

    norm: NormOptions
    swiglu: SwigluOptions
    rotary: RotaryOptions
    rotary_interleaved: RotaryOptions
    logprob: LogprobOptions


# vLLM 0.32 on CPU, found by recomputing the inputs and outputs of its ops: the norm after the
# residual add reads the float32 sum; rotary rounds its tables, then once at the end, and is
# compiled to a fused multiply-add where the pairs are half a head apart, not where interleaved.
VLLM = Preset(
    NormOptions(),
    SwigluOptions(),
    RotaryOptions(),
    RotaryOptions(arithmetic="unfused"),
    LogprobOptions(),
)
# Transformers 5.19 (models/llama/modeling_llama.py): LlamaRMSNorm on the rounded residual stream,
# apply_rotary_pos_emb and act_fn(gate) * up in the dtype of the model.
TRANSFORMERS = Preset(
    NormOptions(norm_reads="rounded_sum"),
    SwigluOptions(),
    RotaryOptions(arithmetic="model_dtype"),
    RotaryOptions(arithmetic="model_dtype"),
    LogprobOptions(),
)
PRESETS = {"vllm": VLLM, "transformers": TRANSFORMERS}


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    # exp(score − maximum) as it multiplies the values: the float32 number, or that rounded to the
    # dtype of the values. The sum that divides the result takes the float32 number either way.
    probabilities: Literal["float32", "rounded"] = "float32"


# vLLM 0.32 on CPU: scores, softmax and P·V in float32, one rounding at the end.
VLLM_ATTENTION = AttentionOptions()
# torch's scaled_dot_product_attention on CPU, which transformers 5.19 calls: P·V is a product of
# matrices in the dtype (aten/src/ATen/native/cpu/FlashAttentionKernel.cpp, conditional_convert).
TRANSFORMERS_ATTENTION = AttentionOptions(probabilities="rounded")
