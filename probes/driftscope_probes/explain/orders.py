"""In which order both sides of a linear layer add, read from the ways that have their bits.

In: both sides' ways at one site. Out: Tree of each side, and where the two part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import LinearParameters
from driftscope_kernels.compare_ops.tree_shape import Tree as Order
from driftscope_kernels.compare_ops.tree_shape import difference
from driftscope_kernels.compare_ops.trees import UnreadableTreeError, read_tree
from driftscope_kernels.compare_ops.variant import AnyVariant, Inputs
from driftscope_probes.explain.judged import Seen
from driftscope_probes.explain.report import Tree
from driftscope_probes.explain.sides.base import SideName
from driftscope_probes.explain.ways import FoundWay

#: Reading takes K calls or more; wider layers are not read (SmolLM2's widest has 1,536).
MOST_TERMS: Final = 8192


def orders_of(seen: Seen, engine: FoundWay, trainer: FoundWay) -> tuple[list[Tree], str]:
    """Trees of both sides and a sentence on where they part; neither where they cannot be read."""
    x = seen.inputs["x"]
    if x.shape[1] > MOST_TERMS or not (engine.exact and trainer.exact):
        return [], ""
    try:
        mine, theirs = (
            read_tree(_linear(way.variant, x.dtype), x.shape[1], x.dtype, len(x))
            for way in (engine, trainer)
        )
    except UnreadableTreeError:
        return [], ""
    parting = difference(mine, theirs)
    said = f" In the engine's order {parting}." if parting else ""
    return [_tree("engine", mine), _tree("trainer", theirs)], said


def _tree(side: SideName, order: Order) -> Tree:
    return Tree(side=side, text=order.summary, hash=order.hash)


def _linear(variant: AnyVariant, dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    def product(x: Tensor, weight: Tensor) -> Tensor:
        rows = torch.arange(len(x))
        inputs = Inputs({"x": x}, rows, torch.tensor([0, len(x)]), rows)
        (y,) = variant.run(inputs, LinearParameters(weight), dtype)
        return y

    return product
