"""Time and memory of the fused log-probability against logits and log_softmax.

Memory is measured in a fresh process: what an earlier call left behind would count or be reused.
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
from driftscope_kernels.speed.row import OURS, TORCH, SpeedRow, Way, alternate, speed_row

HIDDEN, VOCABULARY = 576, 49152  # SmolLM2 135M
ROWS = (64, 1024)
TARGET = 1.2


def measure_token_logprob(name: str, dtype: torch.dtype, rounds: int) -> Iterator[SpeedRow]:
    for m in ROWS:
        times = alternate(ways(dtype, m), rounds)
        yield speed_row("token_logprob", name, (HIDDEN, VOCABULARY, m), times, TARGET)


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


MEMORY_TARGET = 8.0  # times less than the plain way
#: Linux alone lets a process set back the mark of its largest size (man 5 proc, clear_refs).
MEMORY_AVAILABLE = sys.platform == "linux"
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
        return self.ratio >= MEMORY_TARGET


def measure_memory(name: str, dtype: torch.dtype, m: int = ROWS[-1]) -> MemoryRow:
    ours, plain = (grown_bytes(__name__, way, dtype, m) for way in (OURS, TORCH))
    return MemoryRow(name, m, ours, plain)


def grown_bytes(module: str, way: str, dtype: torch.dtype, m: int) -> int:
    """By how much one call of `ways(dtype, m)[way]` of `module` grows a fresh process."""
    arguments = [module, way, str(dtype).removeprefix("torch."), str(m)]
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{way} of {module} failed: {done.stderr[-2000:]}")
    return int(done.stdout)
