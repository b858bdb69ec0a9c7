"""Memory of the fused log-probability against the plain way: what a process grows by at most.

Each way runs in a process of its own: what an earlier call left behind would count or be reused.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import torch

from driftscope_kernels.speed import token_logprob
from driftscope_kernels.speed.row import OURS, TORCH

TARGET = 8.0  # times less than the plain way
#: Linux alone lets a process set back the mark of its largest size (man 5 proc, clear_refs).
AVAILABLE = sys.platform == "linux"
# Prints by how much one call raises the largest resident size, in bytes. The call before it, on
# two rows, pays for what is only paid once.
PROBE = """
import importlib, re, sys, torch
from pathlib import Path
def kibibytes(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
torch.set_num_threads(1)
module, way, dtype, m = sys.argv[1], sys.argv[2], getattr(torch, sys.argv[3]), int(sys.argv[4])
ways = importlib.import_module(module).ways
ways(dtype, 2)[way]()
run = ways(dtype, m)[way]
Path("/proc/self/clear_refs").write_text("5")
before = kibibytes("VmRSS")
run()
print(1024 * (kibibytes("VmHWM") - before))
"""


@dataclass(frozen=True, slots=True)
class MemoryRow:
    dtype: str
    m: int  # tokens
    ours_bytes: int
    torch_bytes: int

    @property
    def ratio(self) -> float:
        """How many times less ours takes."""
        return self.torch_bytes / max(self.ours_bytes, 1)

    @property
    def reached(self) -> bool:
        return self.ratio >= TARGET


def measure_memory(name: str, dtype: torch.dtype, m: int = token_logprob.ROWS[-1]) -> MemoryRow:
    ours, plain = (grown_bytes(token_logprob.__name__, way, dtype, m) for way in (OURS, TORCH))
    return MemoryRow(name, m, ours, plain)


def grown_bytes(module: str, way: str, dtype: torch.dtype, m: int) -> int:
    """By how much one call of `ways(dtype, m)[way]` of `module` grows a fresh process."""
    arguments = [module, way, str(dtype).removeprefix("torch."), str(m)]
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{way} of {module} failed: {done.stderr[-2000:]}")
    return int(done.stdout)
