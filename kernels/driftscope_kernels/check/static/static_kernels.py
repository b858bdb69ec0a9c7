"""Triton kernels as the checker treats them: their compiled code is read, not run.

In: names of cases and dtypes. Out: StaticKernelVerdict, with the fields of KernelVerdict's JSON.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from driftscope_kernels.check.cases.case import DTYPE_NAMES, Subject
from driftscope_kernels.check.process_axis import PythonProcess
from driftscope_kernels.options import VerdictName

TARGET = "triton"
MODULE = "driftscope_kernels.check.static.static_process"
#: Compiled for; a quick check takes the first.
ARCHITECTURES = ("sm_90", "sm_80", "sm_100", "gfx942")
#: A kernel takes seconds per dtype and architecture to compile, once; beyond this it hangs.
TIMEOUT_S = 1800
#: No thread count of this machine enters; the field says the least there is.
THREADS = 1


@dataclass(frozen=True, slots=True)
class StaticKernel:
    """Named like a Kernel; `case` is the name in `triton_kernels.cases`."""

    case: str
    op: str
    dtypes: frozenset[torch.dtype] = frozenset(DTYPE_NAMES)
    target: str = TARGET
    note: str = "compiled ahead of time and read, not run"

    @property
    def implementation(self) -> str:
        return f"compiled{self.case.removeprefix(self.op)}"

    @property
    def name(self) -> str:
        return f"{self.target}/{self.op}/{self.implementation}"


@dataclass(frozen=True, slots=True)
class StaticKernelVerdict:
    """STATIC where that holds on every architecture; `readings` are those of static_process."""

    subject: Subject
    verdict: VerdictName
    reason: str
    readings: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.subject.to_dict(),
            "verdict": self.verdict,
            "reason": self.reason,
            **dict.fromkeys(("remedy", "detection_rate", "counterexample", "proof")),
            **{"missed_twins": [], "axes": [], "shapes": [], "rows": 0, "seconds": 0.0},
            "static": [dict(reading) for reading in self.readings],
        }


def missing() -> str | None:
    """Why there is nothing to read here; None where there is."""
    if find_spec("triton") is None:
        return "triton is not installed"
    return None


def static_kernels() -> tuple[StaticKernel, ...]:
    """One per case of the Triton kernels; Triton itself is not imported."""
    if missing() is not None:
        return ()
    from driftscope_kernels.triton_kernels.cases import CASES

    return tuple(StaticKernel(case.name, case.op) for case in CASES.values())


def read_static(
    kernels: Iterable[StaticKernel], dtypes: Sequence[torch.dtype], *, quick: bool
) -> tuple[list[StaticKernelVerdict], dict[str, bool]]:
    """Verdicts in order, and of every planted fault whether it was refuted."""
    work = [(kernel, dtype) for kernel in kernels for dtype in dtypes if dtype in kernel.dtypes]
    if not work:
        return [], {}
    architectures = ARCHITECTURES[:1] if quick else ARCHITECTURES
    cases = [(kernel.case, DTYPE_NAMES[dtype]) for kernel, dtype in work]
    readings = _readings({"cases": cases, "architectures": architectures, "planted": True})
    by_name: dict[str, list[dict[str, Any]]] = {}
    for reading in readings:
        by_name.setdefault(reading["name"], []).append(reading)
    verdicts = [
        _verdict(kernel, dtype, by_name[f"{kernel.case}/{DTYPE_NAMES[dtype]}"])
        for kernel, dtype in work
    ]
    faults = {
        f"{TARGET}/{name.removeprefix('planted/')}": _all(of_fault, "REFUTED")
        for name, of_fault in by_name.items()
        if name.startswith("planted/")
    }
    return verdicts, faults


def _all(readings: Iterable[Mapping[str, Any]], verdict: str) -> bool:
    return all(reading["verdict"] == verdict for reading in readings)


def _verdict(
    kernel: StaticKernel, dtype: torch.dtype, readings: list[dict[str, Any]]
) -> StaticKernelVerdict:
    subject = Subject(kernel.target, kernel.op, kernel.implementation, dtype, THREADS)
    refuted = [r for r in readings if r["verdict"] == "REFUTED"]
    unread = [r for r in readings if r["verdict"] is None]
    architectures = ", ".join(r["architecture"] for r in refuted or unread or readings)
    if refuted or unread:
        name: VerdictName = "REFUTED" if refuted else "INCONCLUSIVE"
        reasons = dict.fromkeys(text for r in refuted or unread for text in r["reasons"])
        reason = f"{'; '.join(reasons)} ({architectures})"
    else:
        binaries = sum(len(r["binaries"]) for r in readings)
        sizes = readings[0]["batch_sizes"]
        name = "STATIC"
        reason = (
            f"no atomics, {binaries} {'binary' if binaries == 1 else 'binaries'}, the same for "
            f"{len(sizes)} batch sizes from {min(sizes)} to {max(sizes)} ({architectures})"
        )
    return StaticKernelVerdict(subject, name, reason, tuple(readings))


def _readings(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From a process of its own: Triton that interprets cannot compile, and vLLM changes Triton."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        process = PythonProcess(MODULE, request, Path(folder, "results.json"), environment)
        try:
            results = process.wait("reading compiled code", TIMEOUT_S)
        finally:
            process.kill()
        readings: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8"))
    return readings
