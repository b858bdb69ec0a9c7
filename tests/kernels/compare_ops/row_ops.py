"""What tests of the row-wise families share: inputs, and the questions asked of every family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.equality import compared
from driftscope_kernels.compare_ops.variant import (
    ROUNDING,
    AnyFamily,
    Inputs,
    Outputs,
    Variant,
)

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
NARROW = DTYPES[:2]


def packed(tensors: Mapping[str, Tensor], rows: int, tokens: Tensor | None = None) -> Inputs:
    """Two sequences, the second of which begins at position 0 again."""
    first = rows // 2
    positions = torch.cat([torch.arange(first), torch.arange(rows - first)])
    ids = torch.zeros(rows, dtype=torch.int64) if tokens is None else tokens
    return Inputs(tensors, positions, torch.tensor([0, first, rows]), ids)


def named(family: AnyFamily, parameters: Any) -> dict[str, Variant[Any]]:
    return {variant.name: variant for variant in family.variants(parameters)}


def equals(left: Outputs, right: Outputs) -> bool:
    return all(compared(a, b).exact for a, b in zip(left, right, strict=True))


def beyond(
    family: AnyFamily, inputs: Inputs, parameters: Any, dtype: torch.dtype, outputs: Outputs
) -> float:
    """The largest distance to the reference in tolerances."""
    right = family.reference(inputs, parameters)
    allowed = family.tolerance(inputs, parameters, dtype, right)
    ratios = [
        float(((out.double() - exact).abs() / limit.clamp_min(1e-300)).max())
        for out, exact, limit in zip(outputs, right, allowed, strict=True)
    ]
    return max(ratios)


def check_variants(family: AnyFamily, parameters: Any, inputs: Inputs, dtype: torch.dtype) -> None:
    """Each says what it does in words and one line, and lies within the tolerance."""
    names = set()
    for variant in family.variants(parameters):
        outputs = variant.run(inputs, parameters, dtype)
        assert len(outputs) == len(family.outputs)
        assert all(out.dtype == dtype for out in outputs)
        assert variant.reason in ROUNDING
        assert variant.says and not variant.says.endswith(".") and "\n" not in variant.code
        assert beyond(family, inputs, parameters, dtype, outputs) <= 1, variant.name
        names.add(variant.name)
    assert len(names) == len(family.variants(parameters))


def same_as_plain(
    family: AnyFamily, parameters: Any, inputs: Inputs, dtype: torch.dtype
) -> set[str]:
    plain, *others = family.variants(parameters)
    expected = plain.run(inputs, parameters, dtype)
    return {
        other.name for other in others if equals(other.run(inputs, parameters, dtype), expected)
    }


def faults_within(
    family: AnyFamily, parameters: Any, inputs: Inputs, dtype: torch.dtype
) -> Iterator[str]:
    """Faults that the tolerance takes for rounding."""
    for fault in family.faults(parameters):
        outputs = fault.run(inputs, parameters, dtype)
        if beyond(family, inputs, parameters, dtype, outputs) <= 1:
            yield fault.name
