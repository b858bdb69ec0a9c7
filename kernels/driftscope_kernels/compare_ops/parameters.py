"""What an op of a decoder computes with besides its inputs: weights and numbers of one side.

In: nothing. Out: one frozen value per kind of op. Weights are as the side holds them, in its dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

ActivationName = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, slots=True)
class NormParameters:
    """RMSNorm over the last `width` features, by itself or of an update added to a stream."""

    weight: Tensor | None  # [width]; None: no weight, as if all were one
    epsilon: float
    unit_offset: bool = False  # Gemma multiplies by 1 + weight

    @property
    def width(self) -> int | None:
        return None if self.weight is None else int(self.weight.shape[0])


@dataclass(frozen=True, slots=True)
class LinearParameters:
    weight: Tensor  # [out, in]
    bias: Tensor | None = None  # [out]


@dataclass(frozen=True, slots=True)
class RotaryParameters:
    """Turns pairs of features by an angle that grows with the position."""

    head_dim: int
    inverse_frequencies: Tensor  # [rotary width / 2], float32
    scaling: float = 1.0  # cosines and sines are multiplied by it (YaRN)
    interleaved: bool = False  # pairs side by side (GPT-J) instead of half a head apart


@dataclass(frozen=True, slots=True)
class AttentionParameters:
    """Causal attention of one sequence."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None  # a query sees itself and window − 1 keys before it; None: all
    softcap: float | None = None  # softcap · tanh(score / softcap)
    kernel: str | None = None  # the implementation that the side says it ran: "sdpa", "CPU_ATTN"


@dataclass(frozen=True, slots=True)
class ActivationParameters:
    """activation(gate) · up."""

    name: ActivationName


@dataclass(frozen=True, slots=True)
class EmbeddingParameters:
    weight: Tensor  # [vocabulary, width]
    scale: float = 1.0  # Gemma: √width, rounded to the dtype before the product


@dataclass(frozen=True, slots=True)
class TopKParameters:
    """Weights and numbers of the experts that a router's logits choose."""

    experts_used: int
    renormalise: bool
    correction_bias: Tensor | None = None  # [experts], added to the score for the choice alone


@dataclass(frozen=True, slots=True)
class ExpertsParameters:
    gate_up: Tensor  # [experts, 2 · intermediate, width], gate before up
    down: Tensor  # [experts, width, intermediate]
    activation: ActivationName


@dataclass(frozen=True, slots=True)
class LogprobParameters:
    temperature: float = 1.0
    softcap: float | None = None  # of the final logits (Gemma 2)


Parameters = (
    NormParameters
    | LinearParameters
    | RotaryParameters
    | AttentionParameters
    | ActivationParameters
    | EmbeddingParameters
    | TopKParameters
    | ExpertsParameters
    | LogprobParameters
)
