"""The diff of two fingerprints: every changed fact is named with its mechanism, and no other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.fingerprint.difference import ASPECTS, difference
from driftscope_probes.fingerprint.report import FingerprintReport, FunctionReading, PathReading

PATH: dict[str, Any] = {
    "op": "linear",
    "dtype": "fp32",
    "result": "fp32",
    "path": "torch.nn.functional.linear",
    "shape": (1, 256, 576),
    "threads": 1,
    "tree": "(0..575)",
    "tree_hash": "a" * 16,
    "order": "all 576 terms left to right",
    "accumulator_bits": 32,
    "sum_fraction_bits": 23,
    "rounding": "nearest even",
    "fma": True,
    "subnormals": "kept",
    "infinities": "kept",
    "fraction_bits": 25,
    "alignment": "toward zero",
    "products_before_rounding": 1,
    "products_per_step": 1,
    "bits": "0" * 16,
    "why": "",
}
#: A field, another value of it, and the mechanism that is then named.
CHANGES: dict[str, tuple[object, str]] = {
    "tree_hash": ("b" * 16, "order"),
    "products_before_rounding": (16, "products before a rounding"),
    "accumulator_bits": (22, "accumulator"),
    "fraction_bits": (13, "bits kept when aligning"),
    "rounding": ("toward zero", "rounding"),
    "fma": (False, "fused multiply-add"),
    "subnormals": ("flushed", "subnormals"),
    "infinities": ("inf comes out as nan", "infinities"),
    "bits": ("1" * 16, "bits"),
}
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11",
    "platform": "Linux",
    "packages": {"torch": "2.13.0"},
    "hardware": {"cpu": "one"},
    "variables": {},
    "libraries": {"MKL": "2024.2"},
    "kernel_packages": {},
}


def report(
    *paths: dict[str, Any], exp: str = "0" * 16, environment: dict[str, Any] | None = None
) -> FingerprintReport:
    function = FunctionReading(name="exp", dtype="fp32", largest_error_ulp=0.5, at=1.0, bits=exp)
    read = [PathReading(**{**PATH, **each}) for each in paths or ({},)]
    return FingerprintReport.of("cpu", read, [function], environment or ENVIRONMENT)


def test_equal_ones() -> None:
    found = difference(report(), report())
    assert found.equal
    assert found.mechanisms == ()
    assert report().hash == report().hash


@pytest.mark.parametrize("field", CHANGES)
def test_a_change_is_named(field: str) -> None:
    value, mechanism = CHANGES[field]
    found = difference(report(), report({field: value}))
    assert [each.what for each in found.mechanisms] == [mechanism]
    assert found.mechanisms[0].before != found.mechanisms[0].after
    assert "lm_head" in found.mechanisms[0].touches
    assert report().hash != report({field: value}).hash


def test_every_aspect_has_a_change() -> None:
    assert {each.name for each in ASPECTS} < {mechanism for _, mechanism in CHANGES.values()}


@given(st.sets(st.sampled_from(sorted(CHANGES))))
def test_all_changes_are_named(fields: set[str]) -> None:
    other = report({field: CHANGES[field][0] for field in fields})
    expected = {CHANGES[field][1] for field in fields}
    if len(expected) > 1:
        expected -= {"bits"}  # which any other change brings with it
    assert {each.what for each in difference(report(), other).mechanisms} == expected


def test_one_change_at_several_shapes_is_told_once() -> None:
    shapes: list[dict[str, Any]] = [{"shape": (m, 256, 576)} for m in (1, 16)]
    found = difference(
        report(*shapes), report(*({**each, "rounding": "toward zero"} for each in shapes))
    )
    (mechanism,) = found.mechanisms
    assert len(mechanism.shapes) == 2


def test_a_function_and_a_path_of_one_side() -> None:
    found = difference(report(), report({}, {"threads": 2}, exp="f" * 16))
    assert [each.touches for each in found.mechanisms] == [
        "softmax, and with it attention and log-probabilities"
    ]
    assert found.only_after == ("torch.nn.functional.linear, fp32, M 1, N 256, K 576, 2 threads",)
    assert not found.equal


def test_environments_are_part_of_it() -> None:
    other = {
        **ENVIRONMENT,
        "variables": {"MKL_CBWR": "COMPATIBLE"},
        "libraries": {"MKL": "2025.0"},
    }
    found = difference(report(), report(environment=other))
    assert found.equal  # the arithmetic is
    assert {(each.kind, each.name) for each in found.environment} == {
        ("version", "MKL"),
        ("variable", "MKL_CBWR"),
    }


def with_variable(name: str) -> dict[str, Any]:
    return {**ENVIRONMENT, "variables": {name: "1"}}


@pytest.mark.parametrize(
    ("path", "variable", "library"),
    [
        ("torch.mm", "MKL_CBWR", "MKL"),
        ("torch.mm", "ONEDNN_MAX_CPU_ISA", "oneDNN"),
        ("torch.mm", "ATEN_CPU_CAPABILITY", "torch's own kernels"),
        ("numpy.matmul", "OPENBLAS_CORETYPE", "numpy's OpenBLAS"),
        ("numpy.matmul", "MKL_CBWR", None),
        ("driftscope_kernels.ops.linear", "MKL_CBWR", None),
        ("driftscope_kernels.ops.linear", "DRIFTSCOPE_KERNELS", "driftscope's kernels"),
    ],
)
def test_the_library_that_changed_is_named(path: str, variable: str, library: str | None) -> None:
    before = report({"path": path})
    after = report({"path": path, "rounding": "down"}, environment=with_variable(variable))
    named = [each.library for each in difference(before, after).suspects]
    assert named == ([] if library is None else [library])


def test_another_processor_explains_anything() -> None:
    other = report({"rounding": "down"}, environment={**ENVIRONMENT, "hardware": {"cpu": "two"}})
    (suspect,) = difference(report(), other).suspects
    assert (suspect.explains, suspect.of) == (1, 1)


def test_functions_are_of_torch_and_not_of_a_blas() -> None:
    for variable, libraries in (
        ("ATEN_CPU_CAPABILITY", ["torch's own kernels"]),
        ("MKL_CBWR", []),
    ):
        other = report(exp="f" * 16, environment=with_variable(variable))
        assert [each.library for each in difference(report(), other).suspects] == libraries


def test_a_stored_report_is_read_back() -> None:
    stored = report().to_dict()
    assert FingerprintReport.read(stored) == FingerprintReport.read(report().to_dict())
    assert difference(report(), FingerprintReport.read(stored)).equal
