"""Our own implementations as kernels that the checker can run. Out: Kernel objects."""

from __future__ import annotations

from collections.abc import Iterator

from driftscope_kernels.options import TP_SEGMENTS
from driftscope_kernels.registry import DTYPES, Kernel, Run, implementations
from driftscope_kernels.targets.gradients import gradients
from driftscope_kernels.targets.our_ops import FORWARDS, linear_in_segments, with_implementation

TARGET = "driftscope"
#: Name of the reference among the implementations.
PLAIN = "reference"
#: The backward pass of attention takes minutes to check in plain Python; tests hold it to the same
#: bits as the compiled one.
TOO_SLOW = {(PLAIN, "attention_prefill.grad")}


def kernels() -> Iterator[Kernel]:
    """Of every implementation the ops, the tensor-parallel order of linear, and gradients."""
    for name in dict.fromkeys(one.name for one in implementations()):
        for op, run in FORWARDS.items():
            yield _kernel(op, name, run)
        yield _kernel("linear", name, linear_in_segments, order=f"-tp{TP_SEGMENTS}")
        for gradient, run in gradients(FORWARDS, main_grad=True):
            if (name, gradient.op) not in TOO_SLOW:
                yield _kernel(gradient.op, name, run)


def _kernel(op: str, implementation: str, run: Run, *, order: str = "") -> Kernel:
    return Kernel(
        *(TARGET, op, f"{implementation}{order}", with_implementation(implementation, run)),
        *(frozenset(DTYPES), "through driftscope_kernels.ops"),
        # The reference is plain numpy, an element after the other.
        threaded=implementation != PLAIN,
    )
