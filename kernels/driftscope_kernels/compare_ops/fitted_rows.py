"""A temperature or softcap solved for from log-probabilities.

In: logits, ids and what the other side gave. Out: the number, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from driftscope_kernels.compare_ops.log_softmax import exact_logprob
from driftscope_kernels.compare_ops.parameters import LogprobParameters
from driftscope_kernels.compare_ops.precision import (
    FLOAT32,
    largest_at,
    roundoff,
    shortest_decimal,
)
from driftscope_kernels.compare_ops.variant import Inputs

#: Rows that a temperature is solved for from: two would do without rounding, and each try reads
#: whole rows.
_FITTED_ROWS: Final = 8
_STEPS: Final = 64
#: A number known no closer than to a tenth is not named.
_WIDEST: Final = 0.1


@dataclass(frozen=True, slots=True)
class FittedRows:
    """Some rows that a number is solved for from."""

    logits: Tensor  # float64 [rows, vocabulary]
    tokens: Tensor
    seen: Tensor  # float64 [rows, 1]
    errors: tuple[float, float]  # of one value: where logits were scaled in float32, in dtype

    @staticmethod
    def of(inputs: Inputs, seen: Tensor) -> FittedRows:
        step = max(1, len(seen) // _FITTED_ROWS)
        few = seen[::step].double().reshape(-1, 1)
        size = float(few.abs().amax()) if len(few) else 0.0
        # A seen value is rounded once to its dtype, and off by a few float32 roundings of logits.
        logits = inputs["logits"][::step]
        wide = 4 * FLOAT32 * float(logits.double().abs().amax()) if len(few) else 0.0
        error = roundoff(seen.dtype) * size + wide
        # Quotient, tanh and product: three roundings of the logits' dtype where it has 16 bit.
        narrow = 3 * roundoff(logits.dtype) * float(logits.double().abs().amax()) if len(few) else 0
        return FittedRows(logits.double(), inputs.tokens[::step], few, (error, error + narrow))

    def solved(
        self,
        change: Callable[[float], LogprobParameters],
        between: tuple[float, float],
    ) -> float | None:
        """The number whose log-probabilities are those seen, if any does that within rounding."""
        if not len(self.seen) or not bool(self.seen.isfinite().all()):
            return None

        def nearness(log: float) -> float:
            return -float(self._gap(change(math.exp(log))).square().sum())

        step = (between[1] - between[0]) / _STEPS
        coarse = max((between[0] + i * step for i in range(_STEPS + 1)), key=nearness)
        best = largest_at(nearness, coarse - step, coarse + step)
        farthest = float(self._gap(change(math.exp(best))).abs().amax())
        error = next((error for error in self.errors if farthest <= 4 * error), None)
        slope = self._slope(change, best)
        if error is None or slope == 0.0:
            return None
        width = min(4 * error / slope, _WIDEST)
        return shortest_decimal(math.exp(best - width), math.exp(best + width))

    def _gap(self, parameters: LogprobParameters) -> Tensor:
        return exact_logprob(self.logits, self.tokens, parameters) - self.seen

    def _slope(self, change: Callable[[float], LogprobParameters], log: float) -> float:
        """Root of Σ (change of a row per change of log)²: rows tell a number together."""
        ahead, behind = (self._gap(change(math.exp(log + d))) for d in (1e-4, -1e-4))
        return float((ahead - behind).norm()) / 2e-4
