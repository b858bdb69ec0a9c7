"""Ways to compute the experts of a mixture, each exact in its bits.

In: x [tokens, width], weights and experts [tokens, k], the experts' matrices. Out: functions that
give [tokens, width].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_kernels.compare_ops.linear_ways import in_chains
from driftscope_kernels.compare_ops.parameters import ActivationName, ExpertsParameters
from driftscope_kernels.reference.arithmetic import fma

ACTIVATIONS: Final[dict[ActivationName, Callable[[Tensor], Tensor]]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda gate: F.gelu(gate, approximate="tanh"),
    "relu": F.relu,
}
#: vLLM's fast exp for AVX-512 (csrc/cpu/cpu_arch_macros.h): a polynomial of degree five after the
#: power of two is taken out, coefficients from the highest on.
EXP_COEFFICIENTS: Final = (0.00828929059, 0.0418978221, 0.166676521, 0.499991506, 0.999999701, 1.0)
EXP_LOG2E, EXP_LN2 = 1.44269502162933349609375, 0.693147182464599609375  # both float32
EXP_LOWEST, EXP_HIGHEST = -87.336547851562500, 88.722839355468750  # ln of float32's ends


@dataclass(frozen=True, slots=True)
class Routed:
    """What the experts are given; `weights` and `experts` [tokens, k], experts int64."""

    x: Tensor
    weights: Tensor
    experts: Tensor

    def each(self, one: Callable[[Tensor, int], Tensor], count: int, dtype: torch.dtype) -> Tensor:
        """[tokens, k, width]: `one` of the rows and the number of each expert that is chosen."""
        parts = self.x.new_zeros((*self.experts.shape, self.x.shape[1]), dtype=dtype)
        for expert in range(count):
            tokens, places = (self.experts == expert).nonzero(as_tuple=True)
            if len(tokens):
                parts[tokens, places] = one(self.x[tokens], expert).to(dtype)
        return parts


Way = Callable[[Routed, ExpertsParameters, torch.dtype], Tensor]


def _in_dtype(
    given: ExpertsParameters, dtype: torch.dtype, *, down_in: torch.dtype | None = None
) -> Callable[[Tensor, int], Tensor]:
    """One expert as a module in `dtype`; the last product in `down_in` where that is given."""
    activation, last = ACTIVATIONS[given.activation], down_in or dtype

    def one(x: Tensor, expert: int) -> Tensor:
        gate, up = F.linear(x.to(dtype), given.gate_up[expert].to(dtype)).chunk(2, dim=-1)
        return F.linear((activation(gate) * up).to(last), given.down[expert].to(last))

    return one


def summed_in_float32(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
    """transformers' `grouped_mm`: `sum` adds in float32 and rounds once."""
    parts = routed.each(_in_dtype(given, dtype), len(given.down), dtype)
    return (parts * routed.weights[:, :, None]).sum(dim=1).to(dtype)


def batched(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
    """transformers' `batched_mm`: matrix-vector products, which add in another order."""
    activation, parts = ACTIVATIONS[given.activation], []
    for x, experts in zip(routed.x.to(dtype), routed.experts, strict=True):
        columns = x[None, :, None].expand(len(experts), -1, -1)
        inner = torch.bmm(given.gate_up[experts].to(dtype), columns)
        gate, up = inner.squeeze(-1).chunk(2, dim=-1)
        down = given.down[experts].to(dtype)
        parts.append(torch.bmm(down, (activation(gate) * up)[:, :, None]).squeeze(-1))
    return (torch.stack(parts) * routed.weights[:, :, None]).sum(dim=1).to(dtype)


def index_added(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
    """transformers' `eager`: expert after expert is added in the dtype."""
    one, total = _in_dtype(given, dtype), routed.x.new_zeros(routed.x.shape, dtype=dtype)
    for expert in range(len(given.down)):
        tokens, places = (routed.experts == expert).nonzero(as_tuple=True)
        part = one(routed.x[tokens], expert) * routed.weights[tokens, places, None]
        total.index_add_(0, tokens, part.to(dtype))
    return total


def in_router_order(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
    """One place of the router after another is added in the dtype."""
    parts = routed.each(_in_dtype(given, dtype), len(given.down), dtype)
    terms = (parts * routed.weights[:, :, None]).to(dtype)
    total = terms[:, 0]
    for place in range(1, terms.shape[1]):
        total = total + terms[:, place]
    return total


def weighted_accumulator(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
    """vLLM's Triton kernel: the accumulator times the weight, rounded, then added up."""
    one = _in_dtype(given, dtype, down_in=torch.float32)
    parts = routed.each(one, len(given.down), torch.float32)
    terms = (parts * routed.weights[:, :, None].float()).to(dtype)
    return terms.sum(dim=1).to(dtype)


def rounded_once(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
    """All but the activation stays float32 up to the end."""
    one = _in_dtype(given, dtype, down_in=torch.float32)
    parts = routed.each(one, len(given.down), torch.float32)
    return (parts * routed.weights[:, :, None].float()).sum(dim=1).to(dtype)


def float32_throughout(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
    parts = routed.each(_in_dtype(given, torch.float32), len(given.down), torch.float32)
    return (parts * routed.weights[:, :, None].float()).sum(dim=1).to(dtype)


def rounded_weights(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
    narrow = Routed(routed.x, routed.weights.to(dtype), routed.experts)
    return summed_in_float32(narrow, given, dtype)


def weighted_before_down(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
    """The weight multiplies what goes into the last product."""
    activation = ACTIVATIONS[given.activation]
    total = routed.x.new_zeros((*routed.experts.shape, routed.x.shape[1]), dtype=dtype)
    for expert in range(len(given.down)):
        tokens, places = (routed.experts == expert).nonzero(as_tuple=True)
        rows = routed.x[tokens].to(dtype)
        gate, up = F.linear(rows, given.gate_up[expert].to(dtype)).chunk(2, dim=-1)
        inner = (activation(gate) * up * routed.weights[tokens, places, None]).to(dtype)
        total[tokens, places] = F.linear(inner, given.down[expert].to(dtype))
    return total.sum(dim=1).to(dtype)


def vllm_cpu(routed: Routed, given: ExpertsParameters, dtype: torch.dtype) -> Tensor:
    """vLLM's `cpu_fused_moe` with vectors (csrc/cpu/cpu_fused_moe.cpp), as on processors without
    AMX: one float32 accumulator along K, gate and up unrounded, its own exp, one rounding of what
    goes down, and fused multiply-adds of the weighted experts in the order of the router.
    """
    activated = _vllm_silu if given.activation == "silu" else ACTIVATIONS[given.activation]

    def one(x: Tensor, expert: int) -> Tensor:
        first = given.gate_up[expert].to(dtype)
        gate, up = in_chains(x.to(dtype), first, first.shape[1]).chunk(2, dim=-1)
        inner = (up * activated(gate)).to(dtype)
        last = given.down[expert].to(dtype)
        return in_chains(inner, last, last.shape[1])

    parts = routed.each(one, len(given.down), torch.float32)
    weights = routed.weights.float()[:, :, None]
    total = parts[:, 0] * weights[:, 0]
    for place in range(1, parts.shape[1]):
        total = _fma(parts[:, place], weights[:, place].expand_as(total), total)
    return total.to(dtype)


def _vllm_silu(gate: Tensor) -> Tensor:
    return gate * (1.0 / (1.0 + vllm_exp(-gate)))


def vllm_exp(x: Tensor) -> Tensor:
    """float32: e^x as vLLM's CPU kernels have it on AVX-512, about 1e-7 off; 0 below -87.3."""
    held = x.clamp(EXP_LOWEST, EXP_HIGHEST)
    power = _fma(held, torch.full_like(x, EXP_LOG2E), torch.full_like(x, 0.5)).floor()
    rest = _fma(-power, torch.full_like(x, EXP_LN2), held)
    total = torch.full_like(x, EXP_COEFFICIENTS[0])
    for coefficient in EXP_COEFFICIENTS[1:]:
        total = _fma(rest, total, torch.full_like(x, coefficient))
    # Half the power first: at the upper end the whole one is no float32.
    result = torch.ldexp(total, power - 1) * 2.0
    return torch.where(x < EXP_LOWEST, 0.0, result)


def _fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.from_numpy(fma(a.numpy(), b.numpy(), c.numpy()))
