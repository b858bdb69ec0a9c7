"""All speed measurements of the kernels, row by row.

In: ops, dtypes, threads, rounds. Out: SpeedRow after SpeedRow, as they are measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from driftscope_kernels.speed.linear import measure_linear
from driftscope_kernels.speed.row import SpeedRow
from driftscope_kernels.speed.rows import measure_rows
from driftscope_kernels.speed.token_logprob import measure_token_logprob

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GROUPS = {
    "linear": measure_linear,
    "rows": measure_rows,  # norms, softmax family, reductions, SwiGLU
    "token_logprob": measure_token_logprob,
}
DEFAULT_ROUNDS = 7


def run_speed(
    groups: Sequence[str], dtypes: Sequence[str], threads: int, rounds: int
) -> Iterator[SpeedRow]:
    """Names are those of GROUPS and DTYPES; the thread count is set back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for dtype in dtypes:
            for group in groups:
                if group == "token_logprob" and dtype == "float16":
                    # torch's float16 product takes seconds on a CPU without the instructions.
                    continue
                yield from GROUPS[group](dtype, DTYPES[dtype], rounds)
    finally:
        torch.set_num_threads(before)
