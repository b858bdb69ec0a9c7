"""Log-probability of given tokens from hidden states, against logits and log_softmax.

Out: one row per number of tokens. speed/memory.py measures the same two ways.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from driftscope_kernels.cpu.token_logprob import token_logprob
from driftscope_kernels.options import VLLM
from driftscope_kernels.speed.row import OURS, TORCH, SpeedRow, Way, alternate, speed_row

HIDDEN, VOCABULARY = 576, 49152  # SmolLM2 135M
ROWS = (64, 1024)
TARGET = 1.2


def measure_token_logprob(name: str, dtype: torch.dtype, rounds: int) -> Iterator[SpeedRow]:
    for m in ROWS:
        times = alternate(ways(dtype, m), rounds)
        yield speed_row("token_logprob", name, (HIDDEN, VOCABULARY, m), times, TARGET)


def ways(dtype: torch.dtype, m: int) -> dict[str, Way]:
    generator = torch.Generator().manual_seed(m)
    hidden = torch.randn(m, HIDDEN, generator=generator).to(dtype)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).to(dtype)
    targets = torch.randint(0, VOCABULARY, (m,), generator=generator)

    def ours() -> Tensor:
        result = token_logprob(
            hidden, weight, targets, temperature=1.0, top_k=0, options=VLLM.logprob
        )
        return result.logprob

    def plain() -> Tensor:
        logits = (hidden @ weight.t()).float()
        return torch.log_softmax(logits, -1).gather(1, targets[:, None])

    return {OURS: ours, TORCH: plain}
