"""The kernels against torch and vLLM: time, and the memory of the fused log-probability.

All ways alternate in one process. The first ratio is the median over rounds of theirs to ours
(above 1: ours is faster), the one in brackets that of the fastest rounds. "once": the weight was
packed before, as vLLM packs its own; "each": packing is part of every call; "short": target missed.

    OMP_NUM_THREADS=1 python bench/kernels.py [--groups linear,rows,token_logprob] [--threads 1]
"""

from __future__ import annotations

import argparse

from driftscope_kernels.cpu import build
from driftscope_kernels.speed.row import SpeedRow
from driftscope_kernels.speed.run_speed import DEFAULT_ROUNDS, DTYPES, GROUPS, run_speed
from driftscope_kernels.speed.token_logprob import MEMORY_TARGET, measure_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS)
    given = parser.parse_args()
    groups, dtypes = given.groups.split(","), given.dtypes.split(",")
    built = build.built(build.SOURCES, build.cache_folder())
    print(f"built in {built.seconds} s, {given.threads} thread(s)")
    print(f"{'op':14}{'dtype':9}{'K':>6}{'N':>6}{'M':>5}{'':5}{'ours':>10}   x torch        x vLLM")
    rows = []
    for row in run_speed(groups, dtypes, given.threads, given.rounds):
        rows.append(row)
        print(line(row), flush=True)
    aimed = [row for row in rows if row.target is not None]
    print(f"{sum(row.reached for row in aimed)} of {len(aimed)} reach their targets")
    if "token_logprob" in groups:
        for dtype in (name for name in dtypes if name != "float16"):
            print_memory(dtype)


def line(row: SpeedRow) -> str:
    packed = "" if row.op != "linear" else "once" if row.packed else "each"
    vllm = ""
    if row.vllm_ratio is not None:
        vllm = f"{row.vllm_ratio:8.2f} ({row.vllm_best_ratio:.2f})"
    mark = "" if row.reached else "  short"
    return (
        f"{row.op:14}{row.dtype:9}{row.k:6}{row.n:6}{row.m:5}{packed:>5}{row.ours_s * 1e6:8.0f}us"
        f"{row.speed_ratio:9.2f} ({row.best_ratio:.2f}){vllm}{mark}"
    )


def print_memory(dtype: str) -> None:
    memory = measure_memory(dtype)
    mark = "" if memory.ratio >= MEMORY_TARGET else "  short"
    print(
        f"token_logprob {dtype}, {memory.m} tokens: {memory.ours_bytes / 1e6:.1f} MB extra, "
        f"the plain way {memory.torch_bytes / 1e6:.1f} MB: {memory.ratio:.1f} times less{mark}"
    )


if __name__ == "__main__":
    main()
