"""Kernels that compute an op well, but add in another order for some rows: what checks must catch.

In: op, association, trigger. Out: a Kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from driftscope_kernels.check.ordered_sums import ASSOCIATIONS, PLAIN
from driftscope_kernels.check.reassociated_gradients import (
    GRADIENT_OPS,
    TOKEN_FACTORS,
    weight_gradient,
)
from driftscope_kernels.check.reassociated_ops import OPS, Inputs, Ordered, Params
from driftscope_kernels.registry import Kernel

#: Inputs of a weight gradient with a row per token.
TOKEN_INPUTS = ("x", "residual", "targets", "dy")


DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
ORDERED: Mapping[str, Ordered] = {**OPS, **GRADIENT_OPS}
FLOAT32_RESULTS = frozenset({"token_logprob", *TOKEN_FACTORS})


def _one_row(rows: Tensor, size: int) -> Tensor:
    return torch.full_like(rows, size == 1, dtype=torch.bool)


def _three_rows(rows: Tensor, size: int) -> Tensor:
    return torch.full_like(rows, size <= 3, dtype=torch.bool)


def _remainder(rows: Tensor, size: int) -> Tensor:
    return rows >= size - size % 4


def _position(rows: Tensor, size: int) -> Tensor:
    return rows % 4 == 3


#: Which rows of a batch get the other order: [rows], batch size → bool [rows].
TRIGGERS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "one_row": _one_row,
    "three_rows": _three_rows,
    "remainder": _remainder,
    "position": _position,
}


@dataclass(frozen=True, slots=True)
class Twin:
    association: str
    trigger: str

    def kernel(self, op: str) -> Kernel:
        if op in TOKEN_FACTORS:
            return self._weight_gradient(op)

        def run(inputs: Inputs, params: Params) -> Tensor:
            size = len(inputs["x"])
            hit = TRIGGERS[self.trigger](torch.arange(size), size)
            plain = compute(op, inputs, params, PLAIN)
            if not bool(hit.any()):
                return plain
            other = compute(op, inputs, params, self.association)
            return torch.where(hit.view(-1, *[1] * (plain.ndim - 1)), other, plain)

        return Kernel("planted", op, f"{self.association}-{self.trigger}", run, DTYPES)

    def _weight_gradient(self, op: str) -> Kernel:
        """Here blocks of tokens are what rows are elsewhere, and a micro-batch is the batch."""

        def how(block: int, blocks: int) -> str:
            hit = TRIGGERS[self.trigger](torch.arange(blocks), blocks)
            return self.association if bool(hit[block]) else PLAIN

        def run(inputs: Inputs, params: Params) -> Tensor:
            return weight_gradient(op, inputs, params, how)

        return Kernel("planted", op, f"{self.association}-{self.trigger}", run, DTYPES)


def twins() -> tuple[Twin, ...]:
    return tuple(Twin(how, trigger) for how in ASSOCIATIONS for trigger in TRIGGERS)


def compute(op: str, inputs: Inputs, params: Params, how: str) -> Tensor:
    """The op in float32 with one order of additions, rounded to the dtype of x."""
    result = ORDERED[op]({n: t.float() if t.is_floating_point() else t for n, t in inputs.items()},
                      params, how)  # fmt: skip
    return result if op in FLOAT32_RESULTS else result.to(inputs["x"].dtype)
