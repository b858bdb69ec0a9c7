"""`invariant_mode()`: for the length of a block, this thread's torch calls run on our kernels.

In: nothing. Out: an InvariantMode, which knows what it covered. Two mechanisms of torch, both local
to the thread and restored by leaving the block: a function mode takes over the functions whose
gradients are ours too, a dispatch mode the sums that autograd makes below them, and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import local
from typing import Any

from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from driftscope_kernels.invariant_mode import aten_ops, torch_functions
from driftscope_kernels.invariant_mode.backward import BACKWARDS
from driftscope_kernels.invariant_mode.coverage import Counts, Coverage
from driftscope_kernels.invariant_mode.norm_recognition import follow, recognised


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
