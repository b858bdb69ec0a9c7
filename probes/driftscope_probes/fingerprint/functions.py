"""How far functions are from the true value on a fixed grid: exp, log, rsqrt, softmax, …"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from driftscope_kernels.compare_bits import bits
from driftscope_probes.fingerprint.report import HASH_DIGITS, FunctionReading
from driftscope_probes.progress import Progress, ProgressSink

#: Enough for a stable maximum; with the odd one the last vector of a kernel is not full.
POINTS: Final = 2**16 + 1
#: Digits of the error: the float64 of another library may differ in its last bit.
DIGITS: Final = 3
DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Function:
    run: Callable[[Tensor], Tensor]
    low: float
    high: float
    powers: bool = False  # the grid is of powers of two with these exponents


#: Of the grid without its last point; every row goes over all of its range.
SOFTMAX_ROWS: Final = 256


def _softmax(x: Tensor) -> Tensor:
    rows = x[:-1].view(-1, SOFTMAX_ROWS).t().contiguous()
    return torch.softmax(rows, -1).t().flatten()


def _log_softmax(x: Tensor) -> Tensor:
    rows = x[:-1].view(-1, SOFTMAX_ROWS).t().contiguous()
    return torch.log_softmax(rows, -1).t().flatten()


#: Ranges that stay within fp16, so that one grid serves all formats.
FUNCTIONS: Final[Mapping[str, Function]] = {
    "exp": Function(torch.exp, -9.0, 11.0),
    "log": Function(torch.log, -14.0, 15.0, powers=True),
    "rsqrt": Function(torch.rsqrt, -14.0, 15.0, powers=True),
    "tanh": Function(torch.tanh, -4.0, 4.0),
    "silu": Function(functional.silu, -9.0, 20.0),
    "softmax": Function(_softmax, -4.3, 3.9),
    # Not a power of two apart: the differences that log-softmax takes would all be exact.
    "log_softmax": Function(_log_softmax, -4.3, 3.9),
}


def read_functions(progress: ProgressSink) -> list[FunctionReading]:
    found = []
    for number, (name, function) in enumerate(FUNCTIONS.items()):
        progress(Progress("functions", number / len(FUNCTIONS), name))
        found += [_read(name, function, dtype) for dtype in DTYPES]
    return found


def _read(name: str, function: Function, dtype: str) -> FunctionReading:
    grid = torch.linspace(function.low, function.high, POINTS, dtype=torch.float64)
    x = (torch.exp2(grid) if function.powers else grid).to(DTYPES[dtype])
    got = function.run(x)
    error = ulps(got, function.run(x.double()))
    worst = int(error.argmax())
    return FunctionReading(
        name=name,
        dtype=dtype,
        largest_error_ulp=round(float(error[worst]), DIGITS),
        at=float(x[worst]),
        bits=hash_of(got),
    )


def ulps(got: Tensor, true: Tensor) -> Tensor:
    """float64: |got − true| in units of the last place of the true value in got's format."""
    finfo = torch.finfo(got.dtype)
    exponent = torch.frexp(true.abs().clamp_min(finfo.tiny)).exponent - 1
    return (got.double() - true).abs() / torch.exp2(exponent.double()) / finfo.eps


def hash_of(values: Tensor) -> str:
    return hashlib.sha256(bits(values).numpy().tobytes()).hexdigest()[:HASH_DIGITS]
