"""The fresh-process axis: the same calls in other processes, compared bit for bit.

python -m driftscope_kernels.check.process_axis REQUEST RESULTS
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from driftscope_kernels.check.cases.case import ABSORBING, CANCELLING, NORMAL, OpCase, Subject
from driftscope_kernels.check.cases.op_cases import op_case
from driftscope_kernels.check.placements.axes import FRESH_PROCESS, fresh_processes
from driftscope_kernels.check.placements.placement import REFUSALS, Placement, run, thread_count
from driftscope_kernels.check.search import AxisCount, Mismatch, Trial, first_mismatch
from driftscope_kernels.check.verdict import call_spec
from driftscope_kernels.compare_bits import bits
from driftscope_kernels.registry import Kernel

LOG_CHARACTERS = 2000


class ProcessError(RuntimeError):
    """A process ended without results."""


class PythonProcess:
    """`python -m module REQUEST RESULTS`, with the import path of this process."""

    def __init__(
        self, module: str, request: Any, results: Path, environment: Mapping[str, str]
    ) -> None:
        self.results = results
        asked = results.with_suffix(".request.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(asked), str(results)],
            env={**environment, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self, name: str, timeout_s: float) -> Path:
        """The file of results. Raises ProcessError, in which `name` says what ended."""
        output, _ = self._process.communicate(timeout=timeout_s)
        if self._process.returncode != 0:
            raise ProcessError(
                f"{name} ended with {self._process.returncode}: " + output[-LOG_CHARACTERS:].strip()
            )
        return self.results

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


#: One row, for which libraries have ways of its own, and enough that none of them is taken.
HASHED_ROWS = (1, 9)


def result_bits(kernel: Kernel, dtype: torch.dtype, seed: int) -> str | None:
    """At the current number of threads. None: the kernel refuses its inputs.

    The least work that shows a change: the quick shapes, plain inputs, no other layout.
    """
    case = op_case(kernel.op)
    whole = hashlib.sha256()
    try:
        for shape in case.quick_shapes:
            for rows in HASHED_ROWS:
                trial = Trial(shape, dtype, NORMAL, seed, min(rows, case.most_rows or rows))
                whole.update(_hashed_bytes(_hashed_result(kernel, case, trial)))
    except REFUSALS:
        return None  # the check of the kernel itself reports it
    return whole.hexdigest()


def _hashed_result(kernel: Kernel, case: OpCase, trial: Trial) -> Tensor:
    return run(kernel, trial.batch(case), Placement(trial.rows))


def _hashed_bytes(result: Tensor) -> bytes:
    return bits(result.detach()).numpy().tobytes()


MODULE = "driftscope_kernels.check.process_axis"
#: A process imports torch and vLLM, and may compile; beyond this it hangs.
TIMEOUT_S = 600


def fresh_results(specs: Sequence[Mapping[str, Any]]) -> list[Tensor | None]:
    """Results of each spec's right-hand calls, [repeat, rows, …], the first call cold. None: the
    kernel is not available in another process, or raised an error there.
    """
    seeds = {spec["right"]["process"] for spec in specs}
    tensors: dict[int, Tensor] = {}
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        running = []
        for seed in sorted(seeds):
            own = {i: spec for i, spec in enumerate(specs) if spec["right"]["process"] == seed}
            environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
            results = Path(folder, f"{seed}.safetensors")
            running.append(PythonProcess(MODULE, own, results, environment))
        try:
            for process in running:
                results = process.wait("a fresh process", TIMEOUT_S)
                tensors.update({int(i): result for i, result in load_file(results).items()})
        finally:
            for process in running:
                process.kill()
    return [tensors.get(i) for i in range(len(specs))]


def _serve(calls: Path, results: Path) -> None:
    """The child: every call in order; the results of those that did not raise."""
    from driftscope_kernels.check import planted
    from driftscope_kernels.registry import kernels

    by_name = {kernel.name: kernel for kernel in (*kernels(), *planted.kernels())}
    specs: dict[str, dict[str, Any]] = json.loads(calls.read_text(encoding="utf-8"))
    tensors: dict[str, Tensor] = {}
    for number, spec in specs.items():
        name = "/".join(spec[part] for part in ("target", "op", "implementation"))
        result = _repeated(by_name[name], spec) if name in by_name else None
        if result is not None:
            tensors[number] = result
    save_file(tensors, results)


def _repeated(kernel: Any, spec: dict[str, Any]) -> Tensor | None:
    import torch

    from driftscope_kernels.check.cases.op_cases import op_case
    from driftscope_kernels.check.placements.placement import REFUSALS, run, thread_count
    from driftscope_kernels.check.verdict import read_replay_spec

    subject, _, trial, _, right = read_replay_spec(spec)
    batch = trial.batch(op_case(kernel.op))
    try:
        with thread_count(subject.threads):
            results = [run(kernel, batch, right) for _ in range(right.repeat)]
    except REFUSALS:
        return None
    return torch.stack(results).contiguous()


#: A process state reaches every row alike: a few of them, of the smallest shape, show it.
ROWS = 9
#: The first of these that the op has: constructed, but quickly, for every process makes its own.
KINDS = (CANCELLING, ABSORBING, NORMAL)

Work = tuple[Kernel, torch.dtype, int]


@dataclass(frozen=True, slots=True)
class ProcessFinding:
    count: AxisCount
    mismatch: Mismatch | None


def check_processes(work: Sequence[Work], seed: int) -> list[ProcessFinding]:
    """One finding per piece of work, in order."""
    calls = [
        (number, trial, placement)
        for number, (kernel, dtype, _) in enumerate(work)
        for trial in _trials(op_case(kernel.op), dtype, seed)
        for placement in fresh_processes(trial.rows)
    ]
    specs = [
        call_spec(subject_of(*work[number]), FRESH_PROCESS, trial, Placement(trial.rows), placement)
        for number, trial, placement in calls
    ]
    results = fresh_results(specs) if specs else []
    trials, missing = [0] * len(work), [0] * len(work)
    found: list[Mismatch | None] = [None] * len(work)
    for (number, trial, placement), result in zip(calls, results, strict=True):
        trials[number] += 1
        if result is None:
            missing[number] += 1
        elif found[number] is None:
            kernel, _, threads = work[number]
            with thread_count(threads):
                found[number] = _compare(kernel, trial, placement, result)
    return [
        ProcessFinding(
            AxisCount(
                FRESH_PROCESS, trials[number], int(found[number] is not None), missing[number]
            ),
            found[number],
        )
        for number in range(len(work))
    ]


def replay_process(
    kernel: Kernel, subject: Subject, trial: Trial, right: Placement
) -> Mismatch | None:
    spec = call_spec(subject, FRESH_PROCESS, trial, Placement(trial.rows), right)
    (result,) = fresh_results([spec])
    return None if result is None else _compare(kernel, trial, right, result)


def subject_of(kernel: Kernel, dtype: torch.dtype, threads: int) -> Subject:
    return Subject(kernel.target, kernel.op, kernel.implementation, dtype, threads)


def _trials(case: OpCase, dtype: torch.dtype, seed: int) -> list[Trial]:
    rows = min(ROWS, case.most_rows or ROWS)
    kind = next(kind for kind in KINDS if kind in case.kinds)
    return [Trial(case.quick_shapes[0], dtype, kind, seed, rows)]


def _compare(kernel: Kernel, trial: Trial, right: Placement, results: Tensor) -> Mismatch | None:
    plain = Placement(trial.rows)
    try:
        ours = run(kernel, trial.batch(op_case(kernel.op)), plain)
    except REFUSALS:
        return None  # the check of the kernel itself reports it
    for theirs in results:
        sides = ((plain, ours), (right, theirs))
        found = first_mismatch(FRESH_PROCESS, trial, *sides, range(trial.rows))
        if found is not None:
            return found
    return None


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]))
