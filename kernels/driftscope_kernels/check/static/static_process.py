"""Reads the compiled code of Triton kernels, in a process that imports Triton and runs nothing.

    python -m driftscope_kernels.check.static.static_process REQUEST RESULTS

REQUEST: {"cases": [[name, dtype], …], "architectures": […], "planted": bool}. RESULTS: a list of
{"name", "architecture", "verdict", "reasons", "binaries", "batch_sizes"}; `verdict` is null where
the code could not be compiled, and `reasons` says why.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from triton.compiler.errors import CompilationError

from driftscope_kernels.check.placements.placement import REFUSALS
from driftscope_kernels.check.static import planted
from driftscope_kernels.triton_kernels.cases import CASES
from driftscope_kernels.triton_kernels.static_check import DTYPES, case_op, static_verdict

#: Elements per row that the planted kernels are launched with.
PLANTED_WIDTH = 200
FAULTS: tuple[Callable[..., Any], ...] = (
    planted.atomic_split_sum,
    planted.specialised_sum,
    planted.sum_in_parts,
)


def _faulty(function: Callable[..., Any]) -> Callable[[int], Any]:
    return lambda rows: function(torch.empty(rows, PLANTED_WIDTH))


def _wanted(request: dict[str, Any]) -> Iterator[tuple[str, Callable[[int], Any]]]:
    for name, dtype in request["cases"]:
        yield f"{name}/{dtype}", case_op(CASES[name], DTYPES[dtype])
    for function in FAULTS if request["planted"] else ():
        yield f"planted/{function.__name__}", _faulty(function)


def _read(name: str, op: Callable[[int], Any], architecture: str) -> dict[str, Any]:
    try:
        found = static_verdict(name, op, architecture).to_dict()
    except (*REFUSALS, CompilationError, subprocess.CalledProcessError) as error:
        reason = f"not compiled: {type(error).__name__}: {str(error).strip().splitlines()[:1]}"
        found = {"verdict": None, "reasons": [reason], "binaries": [], "batch_sizes": []}
        return {**found, "assumptions": [], "name": name, "architecture": architecture}
    return {**found, "architecture": found.pop("arch")}


def _serve(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        _read(name, op, architecture)
        for name, op in _wanted(request)
        for architecture in request["architectures"]
    ]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_serve(json.loads(Path(sys.argv[1]).read_text()))))
