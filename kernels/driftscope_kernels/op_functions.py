"""The ops, and the functions of these names in the modules of an implementation.

In: modules of one package. Out: its functions, one for every op, and Implementation objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from driftscope_kernels.registry import DTYPES, Implementation

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
    """Of every op the function that one of the modules defines; what they import does not count."""
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
