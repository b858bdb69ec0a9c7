"""Every op of the reference has a Triton kernel of the same name and arguments."""

from __future__ import annotations

import inspect

from driftscope_kernels.reference.registered import FUNCTIONS as REFERENCE
from driftscope_kernels.triton_kernels.cases import CASES
from driftscope_kernels.triton_kernels.registered import FUNCTIONS, implementations

EXTRA = {"dot"}


def test_same_names_and_arguments() -> None:
    ours = {f.__name__: f for f in FUNCTIONS}
    for function in REFERENCE:
        expected = inspect.signature(function).parameters
        found = inspect.signature(ours.pop(function.__name__)).parameters
        assert {n: p.kind for n, p in found.items() if n not in EXTRA} == {
            n: p.kind for n, p in expected.items()
        }
    assert not ours


def test_every_function_is_a_case_of_the_checks() -> None:
    assert {case.op for case in CASES.values()} == {f.__name__ for f in FUNCTIONS}
    assert {one.name for one in implementations()} == {"triton"}
