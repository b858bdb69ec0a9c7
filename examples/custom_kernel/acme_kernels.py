"""A kernel of somebody else, offered to `driftscope kernels check` by one line of packaging.

It sums in two halves for one or two rows and in one go for more, as many libraries do: the check
refutes it and shows the smallest batch in which a row's bits change.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.registry import Kernel


def half_split(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
    """Batch in dimension 0 of "x" and of the result."""
    x, weight = inputs["x"], inputs["weight"].T
    if len(x) > 2:
        return x @ weight
    middle = x.shape[1] // 2
    return x[:, :middle] @ weight[:middle] + x[:, middle:] @ weight[middle:]


def kernels() -> Iterator[Kernel]:
    yield Kernel("acme", "linear", "half_split", half_split, frozenset({torch.float32}))
