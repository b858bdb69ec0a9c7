"""Log-probability of given tokens from hidden states, against logits and log_softmax: time, memory.

Memory is what a process grows by at its largest, each way in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from driftscope_kernels.cpu.token_logprob import token_logprob
from driftscope_kernels.options import VLLM
from driftscope_kernels.speed.paired import Way, alternate
from driftscope_kernels.speed.row import OURS, TORCH, SpeedRow, speed_row

HIDDEN, VOCABULARY = 576, 49152  # SmolLM2 135M
ROWS = (64, 1024)
TARGET = 1.2
MEMORY_TARGET = 8.0  # times less than the plain way
# Prints by how much one call raises the largest resident size, in bytes. Linux only: that mark is
# set back to the present size first (man 5 proc, clear_refs).
PROBE = """
import re, sys, torch
from pathlib import Path
from driftscope_kernels.speed.token_logprob import ways
def kibibytes(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
torch.set_num_threads(1)
way, dtype, m = sys.argv[1], getattr(torch, sys.argv[2]), int(sys.argv[3])
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
    m: int
    ours_bytes: int
    torch_bytes: int

    @property
    def ratio(self) -> float:
        """How many times less ours takes."""
        return self.torch_bytes / max(self.ours_bytes, 1)


def measure_token_logprob(name: str, dtype: torch.dtype, rounds: int) -> Iterator[SpeedRow]:
    for m in ROWS:
        times = alternate(ways(dtype, m), rounds)
        yield speed_row("token_logprob", name, (HIDDEN, VOCABULARY, m), times, TARGET)


def measure_memory(name: str, m: int = ROWS[-1]) -> MemoryRow:
    grown = []
    for way in (OURS, TORCH):
        command = [sys.executable, "-c", PROBE, way, name, str(m)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        grown.append(int(done.stdout))
    return MemoryRow(name, m, *grown)


def ways(dtype: torch.dtype, m: int) -> dict[str, Way]:
    generator = torch.Generator().manual_seed(m)
    hidden = torch.randn(m, HIDDEN, generator=generator).to(dtype)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).to(dtype)
    targets = torch.randint(0, VOCABULARY, (m,), generator=generator)

    def ours() -> Tensor:
        result = token_logprob(
            hidden, weight, targets, temperature=1.0, top_k=0, options=VLLM.logprob
        )
        return result.logprob

    def plain() -> Tensor:
        logits = (hidden @ weight.t()).float()
        return torch.log_softmax(logits, -1).gather(1, targets[:, None])

    return {OURS: ours, TORCH: plain}
