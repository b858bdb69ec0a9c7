"""AdamW on float32 copies of 16-bit weights, as mixed-precision trainers keep them.

In bfloat16 alone an update below 1/256 of a weight is lost; the copies collect them, and what the
model computes with is the copy rounded once, which is also what an engine is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.nn import Parameter


class MasterWeightsAdamW(torch.optim.AdamW):
    """Updates float32 masters; `weights` are then the masters, rounded to their own dtype."""

    def __init__(self, weights: Iterable[Parameter], lr: float) -> None:
        self._weights = list(weights)
        self._masters = [Parameter(weight.detach().float()) for weight in self._weights]
        super().__init__(self._masters, lr=lr, weight_decay=0.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for weight, master in zip(self._weights, self._masters, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
        super().step(closure)
        for weight, master in zip(self._weights, self._masters, strict=True):
            weight.copy_(master)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for weight in self._weights:
            weight.grad = None
