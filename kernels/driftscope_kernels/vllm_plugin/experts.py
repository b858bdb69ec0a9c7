"""Experts of a mixture (unquantised, SwiGLU) through our linear, one expert after another.

In: hidden states [T, H], the chosen experts and their weights [T, top_k]. Out: [T, H]. Which parts
of a token's sum are rounded, and its order, is the choice `experts` of `rounding`; neither has to
do with other tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.cpu.linear import linear
from driftscope_kernels.cpu.reduction import sum as fixed_sum
from driftscope_kernels.cpu.softmax import logsumexp, softmax
from driftscope_kernels.vllm_plugin import patches, rounding
from driftscope_kernels.vllm_plugin.activation import silu_and_mul
from driftscope_kernels.vllm_plugin.rounding import KernelChoiceError


def route() -> None:
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    from vllm.model_executor.layers.fused_moe.router import cpu_router

    def process_weights_after_loading(self: Any, layer: torch.nn.Module) -> None:
        """The weights stay as loaded: what a reload copies into them is what we read."""
        if self.moe_config.activation != MoEActivation.SILU:
            raise KernelChoiceError(
                f"experts with activation {self.moe_config.activation.value}: ours have silu only"
            )

    patches.replace(
        CPUUnquantizedExperts, "process_weights_after_loading", process_weights_after_loading
    )
    patches.replace(CPUUnquantizedExperts, "apply", _apply)
    patches.replace(cpu_router, "_softmax_topk", softmax_topk)


def _apply(
    self: Any,
    output: Tensor,
    hidden_states: Tensor,
    w1: Tensor,
    w2: Tensor,
    topk_weights: Tensor,
    topk_ids: Tensor,
    activation: Any,
    global_num_experts: int,
    expert_map: Tensor | None,
    a1q_scale: Tensor | None,
    a2_scale: Tensor | None,
    workspace13: Tensor,
    workspace2: Tensor,
    expert_tokens_meta: Any,
    apply_router_weight_on_input: bool,
) -> None:
    """As CPUUnquantizedExperts.apply."""
    if expert_map is not None:
        raise KernelChoiceError("expert parallelism: ours run all experts in one process")
    weights = torch.ones_like(topk_weights) if apply_router_weight_on_input else topk_weights
    biases = (self.w1_bias, self.w2_bias)
    output.copy_(mixture(hidden_states, w1, w2, weights, topk_ids, biases))


def mixture(
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    weights: Tensor,
    ids: Tensor,
    biases: tuple[Tensor | None, Tensor | None],
) -> Tensor:
    """x [T, H]; w1 [E, 2·I, H], gate before up; w2 [E, H, I]; weights and ids [T, top_k]."""
    if rounding.in_use().experts == "float32":
        total = x.new_zeros(x.shape, dtype=torch.float32)
        for expert, rows, place in _routed(ids):
            part = _expert(x[rows], expert, w1, w2, biases, torch.float32)
            # A token names an expert once, so no sum meets another here.
            total[rows] += part * weights[rows, place].float()[:, None]
        return total.to(x.dtype)
    terms, factors = x.new_empty(*ids.shape, x.shape[-1]), weights.to(x.dtype)
    for expert, rows, place in _routed(ids):
        part = _expert(x[rows], expert, w1, w2, biases, x.dtype)
        terms[rows, place] = part * factors[rows, place, None]
    return fixed_sum(terms, (1,))


def _routed(ids: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Experts in ascending number, each with its tokens and their positions in `ids`."""
    for expert in sorted(set(ids.flatten().tolist())):
        yield expert, *(ids == expert).nonzero(as_tuple=True)


def _expert(
    x: Tensor,
    expert: int,
    w1: Tensor,
    w2: Tensor,
    biases: tuple[Tensor | None, Tensor | None],
    out_dtype: torch.dtype,
) -> Tensor:
    first, second = (None if bias is None else bias[expert] for bias in biases)
    inner = silu_and_mul(linear(x, w1[expert], first))
    return linear(inner, w2[expert], second, out_dtype=out_dtype)


def softmax_topk(logits: Tensor, top_k: int, renormalize: bool) -> tuple[Tensor, Tensor]:
    """As cpu_router._softmax_topk: weights float32, expert numbers int32, [T, top_k]."""
    if rounding.in_use().experts == "model_dtype":
        return _topk_of_softmax(logits, top_k, renormalize)
    values, ids = torch.topk(logits, k=top_k, dim=-1, sorted=False)
    if renormalize:
        weights = softmax(values, -1)
    else:
        weights = (values - logsumexp(logits, -1)[:, None]).exp()
    return weights.to(torch.float32), ids.to(torch.int32)


def _topk_of_softmax(logits: Tensor, top_k: int, renormalize: bool) -> tuple[Tensor, Tensor]:
    """The same by way of all probabilities, as Qwen3MoeTopKRouter of transformers has it."""
    weights, ids = torch.topk(softmax(logits, -1, out_dtype=torch.float32), top_k, dim=-1)
    if renormalize:
        weights = weights / fixed_sum(weights, (1,), keepdim=True)
    return weights, ids.to(torch.int32)
