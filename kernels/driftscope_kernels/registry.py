"""Which kernels there are: ours, and those that other packages offer by entry point.

In: Kernel and Implementation objects, from our own modules, `register`, or the entry-point group
"driftscope.kernels". Out: the list for the checker, the function that `ops` calls, and the ops that
a package of implementations has to have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

# In this order, so that tests named after them come in the same order in every process.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


Run = Callable[[Mapping[str, Tensor], Mapping[str, Any]], Tensor]

ENTRY_POINT_GROUP = "driftscope.kernels"
# Modules of ours, each with a function of the name given; the order is that of the lists.
IMPLEMENTATION_SOURCES = (
    ("driftscope_kernels.reference.registered", "implementations"),
    ("driftscope_kernels.cpu.registered", "implementations"),
)
KERNEL_SOURCES = (
    ("driftscope_kernels.targets.driftscope", "kernels"),
    ("driftscope_kernels.targets.torch_ops", "kernels"),
    ("driftscope_kernels.targets.vllm_ops", "kernels"),
)
# `ops` takes the first of these that is registered for the op and the dtype.
PREFERENCE = ("cpu", "reference")


@dataclass(frozen=True, slots=True)
class Kernel:
    """Something that can be checked: `run(inputs, params)` computes one op.

    Dimension 0 of the input "x" and of the result is the batch. docs/add-a-kernel.md has the names
    of the inputs of every op.
    """

    target: str  # whose it is: "driftscope", "torch", "vllm", or your package
    op: str  # "linear", "rms_norm", …
    implementation: str  # "reference", "cpu", "onednn", …
    run: Run
    dtypes: frozenset[torch.dtype]
    note: str = ""  # shown by `kernels list`
    threaded: bool = True  # False: no number of threads reaches it, so one is checked

    @property
    def name(self) -> str:
        return f"{self.target}/{self.op}/{self.implementation}"


@dataclass(frozen=True, slots=True)
class Implementation:
    """One of ours for one op, forward or backward; `ops` calls `function`.

    `function` has the signature of the function of that name in `driftscope_kernels.reference` and
    accepts all that it accepts: what it has no fast path for, it hands to the reference itself.
    """

    op: str  # "linear", "linear_weight_grad", "rms_norm_backward", …
    name: str  # one of PREFERENCE
    function: Callable[..., Any]
    dtypes: frozenset[torch.dtype]


_kernels: dict[str, Kernel] = {}
_implementations: dict[tuple[str, str], Implementation] = {}
_loaded: set[str] = set()
_forced: ContextVar[str | None] = ContextVar("driftscope_implementation", default=None)


class DuplicateKernelError(ValueError):
    """Two different kernels under one target, op and implementation."""


class KernelSourceError(TypeError):
    """An entry point that does not return kernels."""


def register(kernel: Kernel) -> Kernel:
    """Add a kernel; the same one again is allowed, another under its name is not."""
    known = _kernels.setdefault(kernel.name, kernel)
    if known != kernel:
        raise DuplicateKernelError(
            f"a kernel named {kernel.name} is registered already; give yours another target or "
            "implementation name"
        )
    return kernel


def kernels(target: str | None = None, op: str | None = None) -> tuple[Kernel, ...]:
    """All registered kernels, or those of one target or one op, in order of registration.

    The entry points of other packages are loaded at the first call. One that cannot be loaded
    raises; nothing is left out in silence.
    """
    for module, function in KERNEL_SOURCES:
        if _is_new(module):
            _register_all(module, getattr(import_module(module), function)())
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.value not in _loaded:
            _register_all(f"entry point {entry.name} = {entry.value}", entry.load()())
            _loaded.add(entry.value)
    return tuple(
        kernel
        for kernel in _kernels.values()
        if target in (None, kernel.target) and op in (None, kernel.op)
    )


def implementations() -> tuple[Implementation, ...]:
    """All of ours, forward and backward."""
    for module, function in IMPLEMENTATION_SOURCES:
        if _is_new(module):
            for one in getattr(import_module(module), function)():
                _implementations[one.op, one.name] = one
    return tuple(_implementations.values())


def implementation(op: str, dtype: torch.dtype) -> Callable[..., Any]:
    """The function that `ops` calls for this op and dtype: the fastest of ours that is there."""
    known = implementations()
    forced = _forced.get()
    for name in PREFERENCE if forced is None else (forced,):
        one = _implementations.get((op, name))
        if one is not None and dtype in one.dtypes:
            return one.function
    raise LookupError(
        f"no implementation{'' if forced is None else f' {forced!r}'} of {op} for {dtype}; there "
        f"are: {', '.join(one.name for one in known if one.op == op)}"
    )


@contextmanager
def using(name: str) -> Iterator[None]:
    """Within the block `ops` calls this implementation ("cpu" or "reference") and no other.

    A backward pass looks its implementations up again: it belongs inside the block too.
    """
    if name not in PREFERENCE:
        raise ValueError(f"implementation {name!r}: choose one of {', '.join(PREFERENCE)}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def _is_new(module: str) -> bool:
    """True once for every module of ours that is part of this installation."""
    package = module.rpartition(".")[0]
    if module in _loaded or find_spec(package) is None or find_spec(module) is None:
        return False
    _loaded.add(module)
    return True


def _register_all(source: str, found: Iterable[Kernel]) -> None:
    if not isinstance(found, Iterable):
        raise KernelSourceError(f"{source} returned {type(found).__name__}, not kernels")
    for kernel in found:
        if not isinstance(kernel, Kernel):
            raise KernelSourceError(
                f"{source} returned a {type(kernel).__name__}; every item has to be a "
                "driftscope_kernels.registry.Kernel"
            )
        register(kernel)


#: Forward and backward, in the order of the lists; an op is the name of its function.
OPS = (
    *("linear", "linear_weight_grad", "linear_bias_grad", "bmm"),
    *("rms_norm", "rms_norm_backward", "add_rms_norm", "add_rms_norm_backward"),
    *("softmax", "softmax_backward", "log_softmax", "log_softmax_backward"),
    *("logsumexp", "logsumexp_backward", "sum", "mean"),
    *("swiglu", "swiglu_backward", "rotary"),
    *("token_logprob", "token_logprob_backward", "attention", "attention_backward"),
)
Functions = tuple[Callable[..., Any], ...]


class OpListError(LookupError):
    """A package of implementations that has no function for an op, or two."""


def op_functions(*modules: ModuleType) -> Functions:
    """Each op's function, as one of the modules defines it; imported functions do not count."""
    found: dict[str, list[Callable[..., Any]]] = {op: [] for op in OPS}
    for module in modules:
        for op, function in vars(module).items():
            if op in found and getattr(function, "__module__", None) == module.__name__:
                found[op].append(function)
    wrong = [
        f"{op} {len(functions)} times" for op, functions in found.items() if len(functions) != 1
    ]
    if wrong:
        names = ", ".join(module.__name__ for module in modules)
        raise OpListError(f"{names} define {', '.join(wrong)}; every op is defined once")
    return tuple(functions[0] for functions in found.values())


def named(name: str, functions: Iterable[Callable[..., Any]]) -> Iterator[Implementation]:
    """Each under the name of the implementation, for all dtypes."""
    for function in functions:
        yield Implementation(function.__name__, name, function, frozenset(DTYPES))
