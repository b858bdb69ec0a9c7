"""Embedding: rows of a table by token, in some models times a scale.

In: token ids. Out: [tokens, width].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import EmbeddingParameters
from driftscope_kernels.compare_ops.precision import input_roundoff, roundoff, smallest
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Reason, Variant

#: Scales differ where they do so by more than a decimal of a configuration tells.
_SAME_SCALE: Final = 1e-9


class EmbeddingFamily(Family[EmbeddingParameters]):
    outputs: Sequence[str] = ("out",)

    def reference(self, inputs: Inputs, parameters: EmbeddingParameters) -> Outputs:
        return (parameters.weight[inputs.tokens].double() * parameters.scale,)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: EmbeddingParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        """The scale and the product are rounded once each, the table where it is of more bits."""
        u = roundoff(dtype)
        stored = input_roundoff(parameters.weight, dtype)
        scaled = 0.0 if parameters.scale == 1.0 else 2 * u + u * u
        lost = smallest(dtype) * (1 + abs(parameters.scale))
        return (reference[0].abs() * (scaled + stored * (1 + scaled)) + lost,)

    def variants(self, parameters: EmbeddingParameters) -> Sequence[Variant[EmbeddingParameters]]:
        if parameters.scale == 1.0:
            return [_PLAIN_ROWS]
        return [_ROUNDED_SCALE, _FLOAT32_SCALE]

    def faults(self, parameters: EmbeddingParameters) -> Sequence[Variant[EmbeddingParameters]]:
        return list(_faults(parameters))


EMBEDDING: Final = EmbeddingFamily()


def _rows(inputs: Inputs, parameters: EmbeddingParameters, dtype: torch.dtype) -> Tensor:
    return parameters.weight[inputs.tokens].to(dtype)


def _plain(inputs: Inputs, parameters: EmbeddingParameters, dtype: torch.dtype) -> Outputs:
    return (_rows(inputs, parameters, dtype),)


def _rounded(inputs: Inputs, parameters: EmbeddingParameters, dtype: torch.dtype) -> Outputs:
    rows = _rows(inputs, parameters, dtype)
    return (rows * torch.tensor(parameters.scale, dtype=dtype),)


def _float32(inputs: Inputs, parameters: EmbeddingParameters, dtype: torch.dtype) -> Outputs:
    rows = _rows(inputs, parameters, dtype)
    return ((rows.float() * parameters.scale).to(dtype),)


_PLAIN_ROWS: Final = Variant(
    "plain", "rounding_point", "rows of the table as they are", "weight[tokens]", _plain
)
_ROUNDED_SCALE: Final = Variant(
    "plain",
    "rounding_point",
    "the scale is rounded to the dtype before the product",
    "weight[tokens] * torch.tensor(scale, dtype=weight.dtype)",
    _rounded,
)
_FLOAT32_SCALE: Final = Variant(
    "float32_scale",
    "rounding_point",
    "the scale stays in float32",
    "(weight[tokens].float() * scale).to(weight.dtype)",
    _float32,
)


def _faults(parameters: EmbeddingParameters) -> Iterator[Variant[EmbeddingParameters]]:
    width = parameters.weight.shape[-1]
    if parameters.scale != 1.0:
        yield _scaled(1.0, "no_scale", "rows are not scaled", _plain)
        yield Variant(
            "bf16_scale",
            "formula",
            "the scale is rounded to bfloat16",
            "weight[tokens] * torch.tensor(scale).bfloat16().to(weight.dtype)",
            _bf16_scale,
        )
    if abs(parameters.scale - width**0.5) > _SAME_SCALE * width:
        yield _scaled(width**0.5, "root_scale", "rows are scaled by √width", _rounded)


def _scaled(
    scale: float,
    name: str,
    says: str,
    inner: Callable[[Inputs, EmbeddingParameters, torch.dtype], Outputs],
    reason: Reason = "formula",
) -> Variant[EmbeddingParameters]:
    def run(inputs: Inputs, parameters: EmbeddingParameters, dtype: torch.dtype) -> Outputs:
        return inner(inputs, replace(parameters, scale=scale), dtype)

    return Variant(name, reason, says, f"weight[tokens] * {scale:g}", run)


def _bf16_scale(inputs: Inputs, parameters: EmbeddingParameters, dtype: torch.dtype) -> Outputs:
    scale = torch.tensor(parameters.scale).bfloat16().to(dtype)
    return (_rows(inputs, parameters, dtype) * scale,)
