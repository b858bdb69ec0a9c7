"""Log-probability of given tokens from hidden states on the CPU: the bits of the reference, fast.

In: hidden [T, K], lm_head weight [V, K], targets [T]. Out: as `reference.token_logprob` gives it.
Memory: one tile of logits [T, 512] at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import chosen
from driftscope_kernels.cpu.linear import add_weight_grad, linear, with_quiet_nan
from driftscope_kernels.options import VOCABULARY_TILE, LogprobOptions
from driftscope_kernels.reference import token_logprob as reference
from driftscope_kernels.reference.arrays import rounded
from driftscope_kernels.reference.token_logprob import TokenLogprobs

# Columns of the running sums of a row, as struct TileState of csrc/rows/rows.h has them.
LARGEST, TOTAL, MOMENT, TARGET_LOGIT = range(4)


def token_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    top_k: int,
    options: LogprobOptions,
    isa: str | None = None,
) -> TokenLogprobs:
    """As `reference.token_logprob.token_logprob`; `isa` as in `cpu.linear.linear`."""
    operators = chosen(isa)
    if operators is None or hidden.numel() == 0 or weight.numel() == 0:
        return reference.token_logprob(
            hidden, weight, targets, temperature=temperature, top_k=top_k, options=options
        )
    states = hidden.new_zeros((len(hidden), 4), dtype=torch.float32)
    states[:, LARGEST] = float("-inf")
    top = hidden.new_zeros((len(hidden), top_k), dtype=torch.float32)
    top_ids = hidden.new_zeros((len(hidden), top_k), dtype=torch.int64)
    wanted = targets.contiguous()
    for start, logits in _tiles(hidden, weight, options, isa):
        operators.logprob_tile.default(
            logits, temperature, wanted, start, states, top, top_ids, isa or ""
        )
    logprob, entropy = operators.logprob_finish.default(states, top, isa or "")
    largest, total, moment = (
        with_quiet_nan(states[:, column].clone()) for column in (LARGEST, TOTAL, MOMENT)
    )
    return TokenLogprobs(logprob, entropy, top, top_ids, largest, total, moment)


def token_logprob_backward(
    dlogprob: Tensor,
    dentropy: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    result: TokenLogprobs,
    *,
    temperature: float,
    options: LogprobOptions,
    carry: Tensor | None = None,
    isa: str | None = None,
) -> tuple[Tensor, Tensor]:
    """As `reference.token_logprob.token_logprob_backward`."""
    operators = chosen(isa)
    if operators is None or hidden.numel() == 0 or weight.numel() == 0:
        return reference.token_logprob_backward(
            dlogprob,
            dentropy,
            hidden,
            weight,
            targets,
            result,
            temperature=temperature,
            options=options,
            carry=carry,
        )
    states = torch.stack(
        (result.largest, result.total, result.moment, torch.zeros_like(result.total)), dim=1
    )
    wide_hidden = hidden.float()
    dhidden = torch.zeros_like(wide_hidden)
    dweight = torch.zeros(weight.shape) if carry is None else carry.clone()
    per_row = (result.entropy, dlogprob.contiguous(), dentropy.contiguous())
    for start, logits in _tiles(hidden, weight, options, isa):
        slope = operators.logprob_slope.default(
            logits, temperature, targets.contiguous(), start, states, *per_row, isa or ""
        )
        tile = slice(start, start + logits.shape[1])
        dhidden = linear(slope, weight[tile].float().t(), initial=dhidden, isa=isa)
        add_weight_grad(slope, wide_hidden, dweight[tile], isa)
    return rounded(dhidden.numpy(), hidden.dtype), dweight


def _tiles(
    hidden: Tensor, weight: Tensor, options: LogprobOptions, isa: str | None
) -> Iterator[tuple[int, Tensor]]:
    """Logits [T, ≤ 512] from each id on, before the temperature."""
    dtype = hidden.dtype if options.logits == "rounded" else torch.float32
    for start in range(0, len(weight), VOCABULARY_TILE):
        tile = weight[start : start + VOCABULARY_TILE]
        yield start, linear(hidden, tile, out_dtype=dtype, isa=isa)
