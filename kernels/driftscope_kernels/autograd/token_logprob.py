"""token_logprob, differentiable: log-probability and entropy from hidden states, without logits.

In: hidden [T, K], lm_head weight [V, K], targets [T]. Out: TokenLogprob, by its contract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from driftscope_kernels.autograd.arguments import (
    ArgumentError,
    carry,
    delivered,
    require_dims,
    require_same_dtype,
    require_shape,
)
from driftscope_kernels.options import VLLM, LogprobOptions
from driftscope_kernels.reference.token_logprob import TokenLogprobs
from driftscope_kernels.registry import implementation


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Nats; the top tokens carry no gradient."""

    logprob: Tensor  # [T] float32
    entropy: Tensor | None  # [T] float32
    top_logprobs: Tensor | None  # [T, top_k] float32, falling; equal ones by rising id
    top_ids: Tensor | None  # [T, top_k] int64


class _TokenLogprob(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        top_k: int,
        options: LogprobOptions,
    ) -> Any:
        run = implementation("token_logprob", hidden.dtype)
        result = run(hidden, weight, targets, temperature=temperature, top_k=top_k, options=options)
        ctx.save_for_backward(hidden, weight, targets, *result)
        ctx.temperature, ctx.options = temperature, options
        ctx.mark_non_differentiable(result.top_logprobs, result.top_ids)
        return result[:4]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlogprob: Tensor, dentropy: Tensor, *_: Tensor) -> Any:
        hidden, weight, targets, *result = ctx.saved_tensors
        run = implementation("token_logprob_backward", hidden.dtype)
        dhidden, dweight = run(
            dlogprob,
            dentropy,
            hidden,
            weight,
            targets,
            TokenLogprobs(*result),
            temperature=ctx.temperature,
            options=ctx.options,
            carry=carry(weight),
        )
        wanted = delivered(weight, dweight) if ctx.needs_input_grad[1] else None
        return dhidden, wanted, None, None, None, None


_apply: Callable[..., Any] = _TokenLogprob.apply


def token_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    top_k: int = 0,
    options: LogprobOptions = VLLM.logprob,
) -> TokenLogprob:
    """log softmax(hidden·weightᵀ / temperature)[target], [T] float32, in memory of [T, 512]."""
    require_same_dtype("token_logprob", hidden=hidden, weight=weight)
    require_dims("token_logprob", "weight", weight, 2)
    require_shape("token_logprob", "hidden", hidden, (len(hidden), weight.shape[1]))
    _require_targets(targets, len(hidden), len(weight))
    if not (temperature > 0 and isfinite(temperature)):
        raise ArgumentError(f"token_logprob: temperature is {temperature}; give a positive number")
    if not 0 <= top_k <= len(weight):
        raise ArgumentError(f"token_logprob: top_k is {top_k}, of {len(weight)} tokens")
    logprob, entropies, top_logprobs, top_ids = _apply(
        hidden, weight, targets, temperature, top_k, options
    )
    return TokenLogprob(
        logprob=logprob,
        entropy=entropies if entropy else None,
        top_logprobs=top_logprobs if top_k else None,
        top_ids=top_ids if top_k else None,
    )


def _require_targets(targets: Tensor, rows: int, vocabulary: int) -> None:
    require_shape("token_logprob", "targets", targets, (rows,))
    if targets.dtype not in (torch.int32, torch.int64) or targets.device.type != "cpu":
        raise ArgumentError(
            f"token_logprob: targets are {targets.dtype} on {targets.device}; give int64 on the CPU"
        )
    if rows and not (0 <= int(targets.min()) and int(targets.max()) < vocabulary):
        raise ArgumentError(
            f"token_logprob: targets run from {int(targets.min())} to {int(targets.max())}; they "
            f"have to lie in [0, {vocabulary}). Leave masked positions out before the call"
        )
