"""The same calls in processes of their own, each with another hash seed and other addresses.

Parent: `fresh_results`; in: specs of calls (`verdict.call_spec`), out: what each process returned.
Child: `python -m driftscope_kernels.check.fresh_process CALLS RESULTS`. One process makes all calls
of a check, since to start one takes seconds. JSON goes in, safetensors come out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

MODULE = "driftscope_kernels.check.fresh_process"
#: A process imports torch and vLLM, and may compile; beyond this it hangs.
TIMEOUT_S = 600
LOG_CHARACTERS = 2000


class FreshProcessError(RuntimeError):
    """A fresh process ended without results."""


def fresh_results(specs: Sequence[Mapping[str, Any]]) -> list[Tensor | None]:
    """Of every spec [repeat, rows, …]: the results of the calls of its right side, the first one
    cold. None: the kernel is not to be had in another process, or raised an error there.
    """
    seeds = {spec["right"]["process"] for spec in specs}
    found: dict[int, Tensor] = {}
    with tempfile.TemporaryDirectory(prefix="driftscope-") as name:
        running = []
        for seed in sorted(seeds):
            calls, results = Path(name, f"{seed}.json"), Path(name, f"{seed}.safetensors")
            own = {i: spec for i, spec in enumerate(specs) if spec["right"]["process"] == seed}
            calls.write_text(json.dumps(own), encoding="utf-8")
            running.append((_start(seed, calls, results), results))
        try:
            for process, results in running:
                output, _ = process.communicate(timeout=TIMEOUT_S)
                if process.returncode != 0:
                    raise FreshProcessError(
                        f"a fresh process ended with {process.returncode}: "
                        + output[-LOG_CHARACTERS:].strip()
                    )
                found.update({int(i): result for i, result in load_file(results).items()})
        finally:
            for process, _ in running:
                process.kill()
                process.wait()
    return [found.get(i) for i in range(len(specs))]


def _start(seed: int, calls: Path, results: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", MODULE, str(calls), str(results)],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": str(seed)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _serve(calls: Path, results: Path) -> None:
    """The child: every call in order; the results of those that did not raise."""
    from driftscope_kernels.registry import kernels
    from driftscope_kernels.targets import planted

    known = {kernel.name: kernel for kernel in (*kernels(), *planted.kernels())}
    specs: dict[str, dict[str, Any]] = json.loads(calls.read_text(encoding="utf-8"))
    found: dict[str, Tensor] = {}
    for number, spec in specs.items():
        name = "/".join(spec[part] for part in ("target", "op", "implementation"))
        result = _repeated(known[name], spec) if name in known else None
        if result is not None:
            found[number] = result
    save_file(found, results)


def _repeated(kernel: Any, spec: dict[str, Any]) -> Tensor | None:
    import torch

    from driftscope_kernels.check.op_cases import op_case
    from driftscope_kernels.check.placement import REFUSALS, run, thread_count
    from driftscope_kernels.check.verdict import read_replay_spec

    subject, _, trial, _, right = read_replay_spec(spec)
    batch = trial.batch(op_case(kernel.op))
    try:
        with thread_count(subject.threads):
            results = [run(kernel, batch, right) for _ in range(right.repeat)]
    except REFUSALS:
        return None
    return torch.stack(results).contiguous()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]))
