"""One list of ops: every package of implementations has a function for each, of one signature."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from driftscope_kernels.cpu.registered import FUNCTIONS as CPU
from driftscope_kernels.reference import linear, softmax
from driftscope_kernels.reference.registered import FUNCTIONS as REFERENCE
from driftscope_kernels.registry import OPS, PREFERENCE, OpListError, implementations, op_functions


def test_each_package_lists_the_ops_in_one_order() -> None:
    assert tuple(f.__name__ for f in REFERENCE) == tuple(f.__name__ for f in CPU) == OPS
    listed = {(one.op, one.name) for one in implementations()}
    assert listed == {(op, name) for op in OPS for name in PREFERENCE}


def test_compiled_functions_take_what_the_reference_takes() -> None:
    for reference, fast in zip(REFERENCE, CPU, strict=True):
        expected = inspect.signature(reference).parameters
        found = dict(inspect.signature(fast).parameters)
        del found["isa"]
        # What only the compiled ones take has a default.
        more = {name: found.pop(name) for name in set(found) - set(expected)}
        assert all(one.default is not one.empty for one in more.values()), fast.__name__
        assert [(n, p.kind) for n, p in found.items()] == [
            (n, p.kind) for n, p in expected.items()
        ], fast.__name__


def test_a_package_without_one_of_them_or_with_two_is_refused() -> None:
    with pytest.raises(OpListError, match=r"reference\.linear,.* rms_norm 0 times.*defined once"):
        op_functions(linear, softmax)
    again = ModuleType("again")
    exec("def linear(): ...", vars(again))
    with pytest.raises(OpListError, match="linear 2 times"):
        op_functions(linear, again)


def test_what_a_module_imports_is_not_its_own() -> None:
    borrowing = ModuleType("borrowing")
    vars(borrowing)["linear"] = linear.linear
    with pytest.raises(OpListError, match="linear 0 times"):
        op_functions(borrowing)
