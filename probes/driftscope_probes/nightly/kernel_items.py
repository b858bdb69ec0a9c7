"""Process entry: checks one kernel after the other and reports each verdict at once.

    python -m driftscope_probes.nightly.kernel_items WORKDIR

request.json: {"units": [{"name", "dtype", "threads"}], "quick", "seed"}. Out: for every unit a
finding with {"verdict": as `kernels check` has it, "bits": a hash of results} or {"missing": why
there is none}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main
from driftscope_probes.nightly.shared_process import FindingTeller
from driftscope_probes.progress import Progress, ProgressSink


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    from driftscope_kernels.check.placements.placement import thread_count
    from driftscope_kernels.check.process_axis import check_processes, result_bits
    from driftscope_kernels.check.run_check import Plan, check_kernel

    units, plan = request["units"], Plan(quick=request["quick"], seed=request["seed"])
    kernels = _found(units)
    present = [kernel for kernel in kernels if not isinstance(kernel, str)]
    progress(Progress("fresh processes", 0.0))
    processes = iter(check_processes(present, plan.seed))
    teller = FindingTeller(len(units), progress)
    for number, one in enumerate(kernels):
        stage = "{name} {dtype}, threads {threads}".format(**units[number])
        teller.began(number, stage)
        if isinstance(one, str):
            teller.done(number, stage, {"missing": one})
            continue
        kernel, dtype, threads = one
        with thread_count(threads):
            verdict = check_kernel(kernel, dtype, plan, next(processes))
            bits = result_bits(kernel, dtype, plan.seed)
        teller.done(number, stage, {"verdict": verdict.to_dict(), "bits": bits})
    return {}


def _found(units: Sequence[Mapping[str, Any]]) -> list[Any]:
    """For each unit (kernel, dtype, threads), or why it cannot be checked here."""
    from driftscope_kernels.check import planted
    from driftscope_kernels.check.cases.case import DTYPES
    from driftscope_kernels.check.cases.op_cases import OP_CASES
    from driftscope_kernels.registry import kernels

    known = {kernel.name: kernel for kernel in (*kernels(), *planted.kernels())}

    def find(name: str, dtype: str, threads: int) -> Any:
        if name not in known:
            return f"there is no kernel {name} here; see driftscope kernels list"
        kernel = known[name]
        if kernel.op not in OP_CASES:
            return f"the checker does not know the inputs of {kernel.op}"
        if DTYPES[dtype] not in kernel.dtypes:
            return f"{name} does not offer {dtype}"
        return kernel, DTYPES[dtype], threads

    return [find(**unit) for unit in units]


if __name__ == "__main__":
    child_main(run)
