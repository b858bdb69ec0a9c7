"""A named way to compute an op, what kind of difference it is, and where ways are looked for.

In: nothing. Out: Inputs, Variant, Family and the reason classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.reasons import REASONS as REASONS
from driftscope_kernels.compare_ops.reasons import ROUNDING as ROUNDING
from driftscope_kernels.compare_ops.reasons import Reason as Reason

#: What a kind of op computes with: one of `parameters`.
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Of one op for the tokens of one or several sequences, packed.

    `tensors`, [tokens, features] each, by the family's own names; `positions` int64 [tokens];
    `cu_seqlens` int64 [sequences + 1]; `tokens` int64 [tokens], ids of the input tokens, or for
    `logprob` of the tokens scored.
    """

    tensors: Mapping[str, Tensor]
    positions: Tensor
    cu_seqlens: Tensor
    tokens: Tensor

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


Outputs = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Variant(Generic[P]):
    """`run` gives the outputs in `dtype`, [tokens, features] each, in the family's order.

    A variant is a way: weights and numbers come from the parameters that it is given; one of a
    fault runs with changed ones.
    """

    name: str
    reason: Reason  # of the difference to the plain way
    says: str  # "the norm reads the float32 sum": a clause without a full stop
    code: str  # one line of torch that does it
    run: Callable[[Inputs, P, torch.dtype], Outputs]


class Family(ABC, Generic[P]):
    """Everything known of one kind of op."""

    #: Names of the outputs, in the order in which variants give them.
    outputs: Sequence[str]

    @abstractmethod
    def reference(self, inputs: Inputs, parameters: P) -> Outputs:
        """In float64, from inputs as they are and no rounding between: what is right."""

    @abstractmethod
    def tolerance(
        self, inputs: Inputs, parameters: P, dtype: torch.dtype, reference: Outputs
    ) -> Outputs:
        """How far from the reference rounding alone can put a side that stores `dtype`.

        float64, shaped as the outputs: the storage dtype's rounding carried through the op.
        """

    @abstractmethod
    def variants(self, parameters: P) -> Sequence[Variant[P]]:
        """Ways that rounding alone tells apart, the plainest first."""

    @abstractmethod
    def faults(self, parameters: P) -> Sequence[Variant[P]]:
        """Ways that are wrong for these parameters: another epsilon, window, base, mask …"""

    def fitted(self, inputs: Inputs, parameters: P, seen: Outputs) -> Sequence[Variant[P]]:
        """Faults with a number that is solved for from what the other side gave: base, epsilon.

        `seen`: that side's outputs, for these inputs, in its dtype. Empty where nothing fits.
        """
        return ()


AnyFamily = Family[Any]
AnyVariant = Variant[Any]
