"""Token log-probabilities: ours against float32 log_softmax over full logits, in one run.

Time: both ways alternate in one process, the ratio is the median over pairs. Memory (Linux): each
way runs once in a fresh process; what its peak resident set (VmHWM) rises above the resident set
just before the call, so that inputs, libraries and their first-call buffers do not count.

    python bench/token_logprobs.py [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from driftscope_probes.dtypes import DTYPES, TORCH_NAMES, Dtype
from driftscope_probes.trainer.token_logprobs import token_logprobs

#: The shape of one training micro-batch on SmolLM2: 1,024 tokens, hidden 576, vocabulary 49,152.
TOKENS, HIDDEN, VOCABULARY = 1024, 576, 49_152
WEIGHT_STD = 0.05
WARM_UP_ROWS = 64


@dataclass(frozen=True, slots=True)
class Row:
    dtype: str
    plain_s: float
    ours_s: float
    time_ratio: float  # ours / plain, median over pairs; below 1: ours is faster
    time_ratio_lowest: float
    time_ratio_highest: float
    plain_extra_bytes: int
    ours_extra_bytes: int
    memory_ratio: float  # ours / plain
    bitwise_equal: bool


@dataclass(frozen=True, slots=True)
class Inputs:
    hidden: Tensor
    weight: Tensor
    targets: Tensor


def plain(inputs: Inputs) -> Tensor:
    logits = F.linear(inputs.hidden, inputs.weight).float()
    return torch.log_softmax(logits, -1).gather(-1, inputs.targets[:, None])[:, 0]


def ours(inputs: Inputs) -> Tensor:
    return token_logprobs(inputs.hidden, inputs.weight, inputs.targets)


WAYS: dict[str, Callable[[Inputs], Tensor]] = {"plain": plain, "ours": ours}


def make_inputs(options: argparse.Namespace, dtype: Dtype) -> Inputs:
    """Filled in place: a float32 intermediate would raise the peak before the measurement."""
    torch.manual_seed(0)
    kind = getattr(torch, TORCH_NAMES[dtype])
    return Inputs(
        torch.empty(options.tokens, options.hidden, dtype=kind).normal_(),
        torch.empty(options.vocabulary, options.hidden, dtype=kind).normal_(0.0, WEIGHT_STD),
        torch.randint(options.vocabulary, (options.tokens,)),
    )


def seconds(way: Callable[[Inputs], Tensor], inputs: Inputs) -> float:
    start = time.perf_counter()
    way(inputs)
    return time.perf_counter() - start


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (peak). Not ru_maxrss: a child inherits its parent's peak in it."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def extra_bytes(way: Callable[[Inputs], Tensor], inputs: Inputs) -> int:
    """Rise of the peak resident set during one call, in a process that has done nothing else."""
    few = slice(0, WARM_UP_ROWS)
    plain(Inputs(inputs.hidden[few], inputs.weight[few], inputs.targets[few] % WARM_UP_ROWS))
    before = resident_bytes("VmRSS")
    way(inputs)
    return resident_bytes("VmHWM") - before


def extra_bytes_in_child(options: argparse.Namespace, dtype: Dtype, way: str) -> int:
    shape = [f"--{name}={getattr(options, name)}" for name in ("tokens", "hidden", "vocabulary")]
    command = [sys.executable, __file__, *shape, f"--threads={options.threads}"]
    command += ["--dtypes", dtype, f"--memory-of={way}"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(options: argparse.Namespace, dtype: Dtype) -> Row:
    inputs = make_inputs(options, dtype)
    equal = torch.equal(plain(inputs), ours(inputs))  # also warms up both
    # Alternating, so that a change of clock or load meets both ways.
    pairs = [(seconds(plain, inputs), seconds(ours, inputs)) for _ in range(options.repeats)]
    ratios = [ours_s / plain_s for plain_s, ours_s in pairs]
    memory = {way: extra_bytes_in_child(options, dtype, way) for way in WAYS}
    return Row(
        dtype=dtype,
        plain_s=median(plain_s for plain_s, _ in pairs),
        ours_s=median(ours_s for _, ours_s in pairs),
        time_ratio=median(ratios),
        time_ratio_lowest=min(ratios),
        time_ratio_highest=max(ratios),
        plain_extra_bytes=memory["plain"],
        ours_extra_bytes=memory["ours"],
        memory_ratio=memory["ours"] / memory["plain"],
        bitwise_equal=equal,
    )


def show(options: argparse.Namespace, rows: list[Row]) -> None:
    print(
        f"{options.tokens} tokens x {options.vocabulary} vocabulary, hidden {options.hidden}, "
        f"{options.threads} thread(s), {options.repeats} pairs; ratios are ours / plain"
    )
    print("dtype  plain s  ours s  time ratio (lowest to highest)  plain MB  ours MB  memory  bits")
    for row in rows:
        print(
            f"{row.dtype:5}  {row.plain_s:7.3f}  {row.ours_s:6.3f}  {row.time_ratio:10.2f} "
            f"({row.time_ratio_lowest:.2f} to {row.time_ratio_highest:.2f})        "
            f"  {row.plain_extra_bytes / 1e6:8.1f}  {row.ours_extra_bytes / 1e6:7.1f}"
            f"  1/{1 / row.memory_ratio:4.1f}  {'equal' if row.bitwise_equal else 'DIFFER'}"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-of", choices=list(WAYS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(extra_bytes(WAYS[options.memory_of], make_inputs(options, options.dtypes[0])))
        return
    rows = [measure(options, dtype) for dtype in options.dtypes]
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "torch": torch.__version__}))
    else:
        show(options, rows)


if __name__ == "__main__":
    main()
