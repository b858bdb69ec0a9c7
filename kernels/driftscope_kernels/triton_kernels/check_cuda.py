"""Runs every op on a GPU against the reference, and every row alone against the batch.

In: `python -m driftscope_kernels.triton_kernels.check_cuda [--op …] [--dtype …]`. Out: a report as
JSON; exit status 0 if all holds, 1 if not, 2 if there is no GPU. `--device cpu` in a process
started with TRITON_INTERPRET=1 tries the command itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from driftscope_kernels.compare_bits import BITS
from driftscope_kernels.reference.registered import FUNCTIONS as REFERENCE
from driftscope_kernels.triton_kernels.cases import CASES, Case, Inputs, results
from driftscope_kernels.triton_kernels.registered import FUNCTIONS

NOTHING_TO_RUN_ON = 2  # exit status
BATCH_SIZES = (*range(1, 18), 31, 32, 33, 127, 128, 129)
# Rows for the comparison with the reference, which is slow: over two blocks of rows of a sum.
REFERENCE_ROWS = 130
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# How far tl.dot's order may move a result, relative to its largest element. One rounding to the
# dtype differs by at most 2^-8 and 2^-11 of an element; float32 sums of 208 terms by far less than
# 208 · 2^-24 of the sum of their sizes, which random signs keep within some 15 times the sum.
DOT_TOLERANCE = {torch.float32: 2.0**-12, torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}


@dataclass(frozen=True, slots=True)
class Finding:
    """One op at one dtype."""

    op: str
    dtype: str
    dot: str | None  # "tensor_cores" or "in_order", None if the op has no product of matrices
    equals_reference: bool  # bit for bit
    within_tolerance: bool
    largest_error: float  # relative to the result's largest element
    batch_invariant: bool
    differing_sizes: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """Bits of the reference wherever the kernel spells its order, else the tolerance."""
        exact = self.equals_reference or self.dot == "tensor_cores"
        return exact and self.within_tolerance and self.batch_invariant


def findings(
    names: list[str], dtypes: list[str], device: torch.device, sizes: tuple[int, ...], rows: int
) -> Iterator[Finding]:
    for name in names:
        for dtype in dtypes:
            for dot in ("in_order", "tensor_cores") if CASES[name].has_dot else (None,):
                yield finding(CASES[name], dtype, dot, device, sizes, rows)


def finding(
    case: Case,
    dtype_name: str,
    dot: str | None,
    device: torch.device,
    sizes: tuple[int, ...],
    rows: int,
) -> Finding:
    """`rows`: of the comparison with the reference; `sizes`: against the batch of the largest."""
    dtype = DTYPES[dtype_name]
    run = _runner(case, dtype, dot)
    reference = {f.__name__: f for f in REFERENCE}[case.op]
    expected = results(reference, case.arguments(_inputs(dtype, slice(0, rows), rows, "cpu")))
    got = [y.cpu() for y in run(_inputs(dtype, slice(0, rows), rows, device))]
    error = max(_error(a, b) for a, b in zip(got, expected, strict=True))
    differing = tuple(m for m in sizes if not _same_alone(case, run, dtype, device, m, max(sizes)))
    return Finding(
        op=case.name,
        dtype=dtype_name,
        dot=dot,
        equals_reference=all(_same_bits(a, b) for a, b in zip(got, expected, strict=True)),
        within_tolerance=error <= DOT_TOLERANCE[dtype],
        largest_error=error,
        batch_invariant=not differing,
        differing_sizes=differing,
    )


def _runner(
    case: Case, dtype: torch.dtype, dot: str | None
) -> Callable[[Inputs], tuple[Tensor, ...]]:
    function = {f.__name__: f for f in FUNCTIONS}[case.op]
    more = {} if dot is None else {"dot": dot}
    return lambda inputs: results(function, case.arguments(inputs), **more)


def _inputs(dtype: torch.dtype, rows: slice, total: int, device: torch.device | str) -> Inputs:
    return Inputs(dtype, rows, total, torch.device(device))


def _same_alone(
    case: Case,
    run: Callable[[Inputs], tuple[Tensor, ...]],
    dtype: torch.dtype,
    device: torch.device,
    count: int,
    total: int,
) -> bool:
    """The first and the last `count` rows alone give the bits that they have in the batch."""
    if not case.row_results:
        return True
    whole = run(_inputs(dtype, slice(0, total), total, device))
    for part in (slice(0, count), slice(total - count, total)):
        alone = run(_inputs(dtype, part, total, device))
        if not all(_same_bits(alone[i], whole[i][part]) for i in case.row_results):
            return False
    return True


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.dtype in BITS:
        a, b = (x.contiguous().view(BITS[x.dtype]) for x in (a, b))
    return a.dtype == b.dtype and a.equal(b)


def _error(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest element; ids of equal standing may change places."""
    if not expected.is_floating_point() or expected.numel() == 0:
        return 0.0
    difference = (got.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m driftscope_kernels.triton_kernels.check_cuda")
    parser.add_argument("--op", action="append", choices=list(CASES), help="default: all")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=BATCH_SIZES)
    parser.add_argument("--rows", type=int, default=REFERENCE_ROWS)
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write(
            "no CUDA device here (torch.cuda.is_available() is false), so nothing was checked\n"
        )
        return NOTHING_TO_RUN_ON
    device = torch.device(given.device)
    names, dtypes = list(given.op or CASES), list(given.dtype or DTYPES)
    found = list(findings(names, dtypes, device, tuple(given.sizes), given.rows))
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "interpreter",
        "torch": torch.__version__,
        "batch_sizes": list(given.sizes),
        "holds": all(one.holds for one in found),
        "findings": [{**asdict(one), "holds": one.holds} for one in found],
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return int(not report["holds"])


if __name__ == "__main__":
    sys.exit(main())
