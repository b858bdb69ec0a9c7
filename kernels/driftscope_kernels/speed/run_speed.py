"""All speed and memory measurements of the kernels.

In: groups, dtypes, threads, rounds. Out: SpeedReport (its `to_dict` is what `kernels bench --json`
prints).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from driftscope_kernels.check.cases.case import DTYPES
from driftscope_kernels.speed import token_logprob
from driftscope_kernels.speed.linear import measure_linear
from driftscope_kernels.speed.row import SpeedRow
from driftscope_kernels.speed.rows import measure_rows
from driftscope_kernels.speed.token_logprob import MemoryRow, measure_memory, measure_token_logprob

TOKEN_LOGPROB = "token_logprob"
GROUPS = {
    "linear": measure_linear,
    "rows": measure_rows,  # norms, softmax family, reductions, SwiGLU
    TOKEN_LOGPROB: measure_token_logprob,
}
DEFAULT_ROUNDS = 7

Tell = Callable[[str, float], None]  # what has been measured, fraction of the whole


@dataclass(frozen=True, slots=True)
class SpeedReport:
    rows: tuple[SpeedRow, ...]
    memory: tuple[MemoryRow, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows": [{**asdict(row), "reached": row.reached} for row in self.rows],
            "memory": [
                {
                    **asdict(row),
                    "ratio": row.ratio,
                    "target": token_logprob.MEMORY_TARGET,
                    "reached": row.reached,
                }
                for row in self.memory
            ],
        }


def run_speed(
    groups: Sequence[str], dtypes: Sequence[str], threads: int, rounds: int, tell: Tell
) -> SpeedReport:
    """Names are those of GROUPS and DTYPES; the thread count is set back afterwards."""
    work = list(_work(groups, dtypes))
    steps = len(work) + 1
    rows = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for number, (group, dtype) in enumerate(work):
            tell(f"{group} {dtype}", number / steps)
            for row in GROUPS[group](dtype, DTYPES[dtype], rounds):
                rows.append(row)
                tell(f"{row.op} {dtype} K={row.k} N={row.n} M={row.m}", number / steps)
    finally:
        torch.set_num_threads(before)
    tell("memory", len(work) / steps)
    return SpeedReport(tuple(rows), tuple(_memory(work)))


def _work(groups: Sequence[str], dtypes: Sequence[str]) -> Iterator[tuple[str, str]]:
    for dtype in dtypes:
        for group in groups:
            # torch's fp16 product over a vocabulary takes seconds on a CPU without instructions.
            if (group, dtype) != (TOKEN_LOGPROB, "fp16"):
                yield group, dtype


def _memory(work: Sequence[tuple[str, str]]) -> Iterator[MemoryRow]:
    for group, dtype in work:
        if group == TOKEN_LOGPROB and token_logprob.MEMORY_AVAILABLE:
            yield measure_memory(dtype, DTYPES[dtype])
