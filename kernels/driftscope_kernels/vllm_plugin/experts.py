"""Experts of a mixture (unquantised, SwiGLU) through our linear, one expert after another.

In: hidden states [T, H], the chosen experts and their weights [T, top_k]. Out: [T, H]. A token's
sum over its experts is in float32, experts in ascending number, rounded once: it depends neither on
other tokens nor on the order in which the router names the experts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.cpu.softmax import logsumexp, softmax
from driftscope_kernels.vllm_choice import KernelChoiceError
from driftscope_kernels.vllm_plugin import patches
from driftscope_kernels.vllm_plugin.activation import silu_and_mul
from driftscope_kernels.vllm_plugin.linear import product


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
    total = x.new_zeros(x.shape, dtype=torch.float32)
    for expert in sorted(set(ids.flatten().tolist())):
        rows, place = (ids == expert).nonzero(as_tuple=True)
        first, second = (None if bias is None else bias[expert] for bias in biases)
        inner = silu_and_mul(product(x[rows], w1[expert], first))
        part = product(inner, w2[expert], second, out_dtype=torch.float32)
        # A token names an expert once, so no sum meets another here.
        total[rows] += part * weights[rows, place].float()[:, None]
    return total.to(x.dtype)


def softmax_topk(logits: Tensor, top_k: int, renormalize: bool) -> tuple[Tensor, Tensor]:
    """As cpu_router._softmax_topk: weights float32, expert numbers int32, [T, top_k]."""
    values, ids = torch.topk(logits, k=top_k, dim=-1, sorted=False)
    if renormalize:
        weights = softmax(values, -1)
    else:
        weights = (values - logsumexp(logits, -1)[:, None]).exp()
    return weights.to(torch.float32), ids.to(torch.int32)
