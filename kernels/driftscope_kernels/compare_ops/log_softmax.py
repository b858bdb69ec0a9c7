"""Ways to take the log-softmax of a row at one token, and the logits before it scaled.

In: logits [rows, vocabulary], ids [rows, 1]. Out: [rows, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import LogprobParameters
from driftscope_kernels.options import VOCABULARY_TILE

#: Rows at a time in float64: 64 of a vocabulary of 256,000 are 130 MB.
ROWS: Final = 64


def capped(logits: Tensor, parameters: LogprobParameters) -> Tensor:
    if parameters.softcap is None:
        return logits
    return torch.tanh(logits / parameters.softcap) * parameters.softcap


def divided(logits: Tensor, parameters: LogprobParameters) -> Tensor:
    return logits if parameters.temperature == 1.0 else logits / parameters.temperature


def scaled(logits: Tensor, parameters: LogprobParameters) -> Tensor:
    return divided(capped(logits, parameters), parameters)


def scaled_exactly(logits: Tensor, parameters: LogprobParameters) -> Tensor:
    return scaled(logits.double(), parameters)


def moved_by_cap(logits: Tensor, parameters: LogprobParameters) -> Tensor | float:
    """What a rounded quotient inside a tanh moves, at most: c·u·|x/c|·(1 − tanh²)."""
    if parameters.softcap is None:
        return 0.0
    inner = logits.double() / parameters.softcap
    return parameters.softcap * inner.abs() / inner.cosh().square() / parameters.temperature


def log_softmax(x: Tensor, tokens: Tensor) -> Tensor:
    return torch.log_softmax(x, -1).gather(1, tokens)


def _logsumexp(x: Tensor, tokens: Tensor) -> Tensor:
    return x.gather(1, tokens) - torch.logsumexp(x, -1, keepdim=True)


def _shifted(x: Tensor, tokens: Tensor) -> Tensor:
    shifted = x - x.amax(-1, keepdim=True)
    return shifted.gather(1, tokens) - shifted.exp().sum(-1, keepdim=True).log()


def _tiles(x: Tensor, tokens: Tensor) -> Tensor:
    """Each tile's sum is by torch, against the maximum of the row; totals are added in order."""
    top = x.amax(-1, keepdim=True)
    total = torch.zeros_like(top)
    for tile in torch.split(x, VOCABULARY_TILE, -1):
        total = total + (tile - top).exp().sum(-1, keepdim=True)
    return x.gather(1, tokens) - (top + total.log())


def _numpy(x: Tensor, tokens: Tensor) -> Tensor:
    top = x.amax(-1, keepdim=True)
    total = torch.from_numpy((x - top).exp().numpy().sum(-1, keepdims=True))
    return x.gather(1, tokens) - (top + total.log())


def _float64_sum(x: Tensor, tokens: Tensor) -> Tensor:
    sums = [torch.logsumexp(block.double(), -1, keepdim=True) for block in torch.split(x, ROWS)]
    return x.gather(1, tokens) - torch.cat(sums).float()


SOFTMAXES: Final = {
    "log_softmax": log_softmax,
    "logsumexp": _logsumexp,
    "shifted": _shifted,
    "tiles": _tiles,
    "numpy": _numpy,
    "float64_sum": _float64_sum,
}
CODE: Final = {
    "log_softmax": "torch.log_softmax(logits.float(), -1).gather(1, ids[:, None])",
    "logsumexp": "logits.float().gather(1, ids[:, None]) - logits.float().logsumexp(-1, True)",
    "shifted": "s = x - x.amax(-1, True); s.gather(1, ids[:, None]) - s.exp().sum(-1, True).log()",
    "tiles": "sum((t - m).exp().sum(-1, True) for t in x.split(512, -1)).log()",
    "numpy": "torch.from_numpy((x - m).exp().numpy().sum(-1, keepdims=True)).log()",
    "float64_sum": "x.gather(1, ids[:, None]) - x.double().logsumexp(-1, True).float()",
}


def exact_logprob(logits: Tensor, tokens: Tensor, parameters: LogprobParameters) -> Tensor:
    """float64 [tokens, 1]"""
    return torch.cat(
        [
            torch.log_softmax(scaled_exactly(rows, parameters), -1).gather(1, ids)
            for rows, ids, _ in blocks_of(logits, tokens, tokens[:, None])
        ]
    )


def blocks_of(
    logits: Tensor, tokens: Tensor, beside: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    parts = (torch.split(part, ROWS) for part in (logits, tokens[:, None], beside))
    return zip(*parts, strict=True)
