"""What is wrong with a norm: another epsilon, offset or weight; an epsilon read off an output.

In: the parameters, or rows with what the other side made of them. Out: other parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.norm_ways import weight_of
from driftscope_kernels.compare_ops.parameters import NormParameters
from driftscope_kernels.compare_ops.precision import (
    shortest_decimal,
)
from driftscope_kernels.compare_ops.variant import Reason

#: Epsilons that models are published with.
_EPSILONS: Final = (1e-5, 1e-6, 1e-8, 1e-12)
#: How many standard errors of the mean epsilon seen may be off: 1 in 15,000 by chance.
_ERRORS: Final = 4.0


def other_epsilons(own: float) -> list[float]:
    near = [float(f"{own * 10:.6g}"), float(f"{own / 10:.6g}")]
    return [other for other in dict.fromkeys([*near, *_EPSILONS]) if other != own]


_Change = tuple[str, str, Reason, Callable[[NormParameters], NormParameters]]


def changes_of(parameters: NormParameters) -> Iterator[_Change]:
    if parameters.weight is None:
        return
    offset = not parameters.unit_offset
    yield (
        "unit_offset" if offset else "no_unit_offset",
        "the weight is taken as an offset from one" if offset else "one is not added to the weight",
        "formula",
        lambda own: replace(own, unit_offset=offset),
    )
    yield (
        "no_weight",
        "the weight is not applied",
        "formula",
        lambda own: replace(
            own, weight=None if own.weight is None else torch.ones_like(own.weight),
            unit_offset=False,
        ),
    )  # fmt: skip


def epsilon_seen(total: Tensor, parameters: NormParameters, seen: Tensor) -> float | None:
    """The other side's epsilon: 1/r² less the mean square, with r = y/(x·weight) by least squares.

    Rows weigh by how exactly they tell it: small ones do. None where they do not tell it from this
    side's.
    """
    width = parameters.width or total.shape[-1]
    rows = (total * weight_of(parameters, total)).reshape(-1, width)
    normed, mean = seen.double().reshape(-1, width), total.reshape(-1, width).square().mean(-1)
    own = rows.square().sum(-1)
    root = (normed * rows).sum(-1) / own
    usable = (own > 0) & (root > 0) & root.isfinite() & mean.isfinite()
    if int(usable.sum()) < 2:
        return None
    root, mean = root[usable], mean[usable]
    weight = root**4
    each = root**-2 - mean
    epsilon = float((each * weight).sum() / weight.sum())
    spread = float(((each - epsilon).square() * weight).sum() / weight.sum())
    error = _ERRORS * (spread / len(each)) ** 0.5
    if abs(epsilon - parameters.epsilon) <= error or epsilon + error <= 0:
        return None
    return shortest_decimal(max(epsilon - error, 0.0), epsilon + error)
