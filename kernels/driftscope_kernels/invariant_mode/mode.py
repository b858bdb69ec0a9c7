"""`invariant_mode()`: for the length of a block, this thread's torch calls run on our kernels.

In: nothing. Out: an InvariantMode, whose Coverage counts what ran on our kernels and what did not.
Two mechanisms of torch, both local to the thread and undone when the block ends: a function mode
takes over the functions whose gradients are ours too; a dispatch mode takes over the sums that
autograd makes below them, and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import local
from types import MappingProxyType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from driftscope_kernels.invariant_mode import aten_ops, torch_functions
from driftscope_kernels.invariant_mode.backward import BACKWARDS
from driftscope_kernels.invariant_mode.norm_recognition import follow, recognised

# Ops of torch that add up no floating-point numbers, or (index_add) add them in the order of the
# index: they move, compare, count or make values. Views are recognised by their schema,
# element-wise ops by their tag.
MOVES = frozenset(
    (
        "_index_put_impl_ _local_scalar_dense _to_copy _unsafe_view amax amin arange argmax argmin "
        "argsort bucketize cat clone constant_pad_nd copy_ embedding empty empty_like "
        "empty_strided equal fill_ flip full full_like gather histc index index_add index_add_ "
        "index_copy index_copy_ index_fill index_put index_put_ index_select item lift_fresh "
        "masked_fill masked_fill_ masked_scatter masked_select max min new_empty "
        "new_empty_strided new_full new_ones new_zeros nonzero ones ones_like randint repeat "
        "resize_ roll scalar_tensor scatter searchsorted select_backward select_scatter set_ "
        "slice_backward slice_scatter sort split_with_sizes_copy stack topk tril tril_ triu triu_ "
        "where zero_ zeros zeros_like"
    ).split()
)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Calls by name: torch functions and ATen ops, forward and backward, of one thread."""

    routed: Mapping[str, int]  # ran through our kernels
    row_by_row: Mapping[str, int]  # torch's own: element by element, copies, views, whole numbers
    stock: Mapping[str, int]  # torch's own; nothing is known about their invariance


@dataclass(slots=True)
class Counts:
    """Coverage under construction."""

    routed: Counter[str] = field(default_factory=Counter)
    row_by_row: Counter[str] = field(default_factory=Counter)
    stock: Counter[str] = field(default_factory=Counter)

    def add_aten(self, op: Any, args: Any, kwargs: Any, result: Any) -> None:
        """An ATen op that torch's own kernel ran; those of our own library are not counted."""
        if op.namespace == "aten":
            name = op.overloadpacket.__name__
            by_row = is_row_by_row(op, result) and not _adds_up(op, args, kwargs)
            counts = self.row_by_row if by_row else self.stock
            counts[f"aten.{name}"] += 1

    def snapshot(self) -> Coverage:
        return Coverage(*(_sorted(part) for part in (self.routed, self.row_by_row, self.stock)))


def is_row_by_row(op: Any, result: Any) -> bool:
    """Whether a row of the result is known not to depend on the rest of the batch."""
    return (
        torch.Tag.pointwise in op.tags
        or op.overloadpacket.__name__ in MOVES
        or op.is_view
        or not _has_floats(result)
    )


def _adds_up(op: Any, args: Any, kwargs: Any) -> bool:
    """Whether values are added where an index occurs twice, in no order that torch fixes."""
    if op.overloadpacket.__name__ in ("index_put", "index_put_", "_index_put_impl_"):
        accumulate = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
        # A mask names every element once.
        masks = all(index is None or index.dtype == torch.bool for index in args[1])
        return bool(accumulate) and not masks
    return op.overloadpacket.__name__ == "scatter" and "reduce" in op._overloadname


def _has_floats(result: Any) -> bool:
    items = result if isinstance(result, (tuple, list)) else (result,)
    return any(isinstance(item, torch.Tensor) and item.is_floating_point() for item in items)


def _sorted(counts: Counter[str]) -> Mapping[str, int]:
    return MappingProxyType(dict(sorted(counts.items())))


class InvariantMode:
    """One block of invariant mode."""

    def __init__(self) -> None:
        self.counts = Counts()

    def coverage(self) -> Coverage:
        """What ran so far in this block, blocks inside it included."""
        return self.counts.snapshot()


class _Thread(local):
    """Blocks that this thread is in, outermost first."""

    def __init__(self) -> None:
        self.blocks: list[InvariantMode] = []


_thread = _Thread()


@contextmanager
def invariant_mode() -> Iterator[InvariantMode]:
    """Within the block this thread computes with our kernels, forward and backward.

    A backward pass belongs inside the block: outside, our ops keep their own gradients, but sums
    that autograd adds to them are torch's. Blocks may be nested; other threads and everything
    after the block run as before. Raises InvariantModeError at dropout in training.
    """
    block = InvariantMode()
    outermost = not _thread.blocks
    _thread.blocks.append(block)
    try:
        if outermost:
            with _AtenMode(), _FunctionMode():  # type: ignore[no-untyped-call]
                yield block
        else:
            yield block
    finally:
        _thread.blocks.remove(block)


def _routed(name: str) -> None:
    for block in _thread.blocks:
        block.counts.routed[name] += 1


class _FunctionMode(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        backward = BACKWARDS.get(func)
        if backward is not None:
            with _FunctionMode():
                result = backward(*args, **kwargs)
            if result is not NotImplemented:
                return result
        route = torch_functions.ROUTES.get(func)
        if route is not None:
            name, run = route
            result = run(*args, **kwargs)
            if result is not NotImplemented:
                _routed(name)
                return result
        norm = recognised(func, args, kwargs)
        if norm is not None:
            _routed("rms_norm")
            return norm
        result = func(*args, **kwargs)
        follow(func, args, kwargs, result)
        return result


class _AtenMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        run = aten_ops.ROUTES.get(func)
        if run is not None:
            result = run(*args, **kwargs)
            if result is not NotImplemented:
                _routed(f"aten.{func.overloadpacket.__name__}")
                return result
        result = func(*args, **kwargs)
        for block in _thread.blocks:
            block.counts.add_aten(func, args, kwargs, result)
        return result
