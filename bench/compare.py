"""The full comparison: ours against verl's metrics on the same tokens, and a push's whole analysis.

Time: the ways alternate in one process as a user has it: no variable set, verl on as many threads
as torch takes. Ratios are medians over the rounds. verl gets its padded tensors ready-made.
Memory (Linux): each way runs once in a fresh process, after a small warm-up; what its peak resident
set (VmHWM) rises above the resident set before the call.

    python -m bench.compare [--json]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from bench.verl_own import Verl, download_wheel, load
from numpy.typing import NDArray
from torch import Tensor

from driftscope_probes.analysis import analyze_step
from driftscope_probes.mismatch import compare
from driftscope_probes.push.pushed_step import PushedStep, pushed_step

SEQUENCES, LONGEST = 512, 8192
#: Probabilities of sampled tokens as a language model has them: most near 1, a tail to 1e-6.
SHARPNESS = 0.3
#: Typical of bfloat16 rounding between two engines, with a tail of tokens that differ far more.
NOISE, TAIL_SHARE, TAIL_NOISE = 0.02, 0.01, 0.3
WARM_UP_SEQUENCES = 4
#: torch's threads spin for a while after verl's turn, which would be counted to the next one.
PAUSE_S = 0.05
#: Each sets how many threads a library takes; with one of them the figures are not a user's.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The same tokens twice: ragged for us, padded for verl."""

    rollout: NDArray[np.float32]  # [tokens]
    trainer: NDArray[np.float32]  # [tokens]
    cu_seqlens: NDArray[np.int64]  # [sequences + 1]
    padded_rollout: Tensor  # [sequences, longest]
    padded_trainer: Tensor
    mask: Tensor

    @property
    def step(self) -> PushedStep:
        return pushed_step(
            {
                "rollout_logprobs": self.rollout,
                "trainer_logprobs": self.trainer,
                "cu_seqlens": self.cu_seqlens,
            },
            {},
        )

    @property
    def bytes_given(self) -> int:
        return self.rollout.nbytes + self.trainer.nbytes + self.cu_seqlens.nbytes


@dataclass(frozen=True, slots=True)
class Result:
    tokens: int
    ours_s: float
    verl_s: float
    ours_tokens_per_s: float
    verl_tokens_per_s: float
    ratio: float  # ours / verl in tokens per second, median over pairs
    ratio_lowest: float
    ratio_highest: float
    analysis_s: float  # comparison, aliases and presets of a push
    analysis_ratio: float  # analysis / comparison in seconds, median over rounds
    threads: int  # that verl may use
    input_bytes: int
    ours_extra_bytes: int
    verl_extra_bytes: int
    memory_share: float  # ours, of the input's size


def make_inputs(sequences: int, longest: int) -> Inputs:
    rng = np.random.default_rng(0)
    lengths = rng.integers(longest // 2, longest + 1, sequences)
    tokens = int(lengths.sum())
    rollout = np.log(rng.random(tokens) ** SHARPNESS).astype(np.float32)
    noise = np.where(rng.random(tokens) < TAIL_SHARE, TAIL_NOISE, NOISE) * rng.normal(size=tokens)
    trainer = np.minimum((rollout * (1 + noise) + noise * 1e-3).astype(np.float32), np.float32(0))
    mask = torch.from_numpy(np.arange(longest) < lengths[:, None])
    padded = [torch.zeros(sequences, longest) for _ in range(2)]
    for target, values in zip(padded, (rollout, trainer), strict=True):
        target[mask] = torch.from_numpy(values)
    limits = np.concatenate([[0], np.cumsum(lengths)])
    return Inputs(rollout, trainer, limits, padded[0], padded[1], mask)


def ours(inputs: Inputs) -> None:
    compare(inputs.rollout, inputs.trainer, inputs.cu_seqlens).to_dict()


def analysis(inputs: Inputs) -> None:
    analyze_step(inputs.step).to_dict()


def verl_way(verl: Verl) -> Callable[[Inputs], None]:
    def both_functions(inputs: Inputs) -> None:
        rollout, trainer, mask = inputs.padded_rollout, inputs.padded_trainer, inputs.mask
        verl.rollout_corr.compute_offpolicy_metrics(trainer, rollout, mask)
        verl.rollout_corr.compute_rollout_correction_weights(trainer - rollout, mask)

    return both_functions


def seconds(way: Callable[[Inputs], None], inputs: Inputs) -> float:
    time.sleep(PAUSE_S)
    start = time.perf_counter()
    way(inputs)
    return time.perf_counter() - start


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (peak). Not ru_maxrss: a child inherits its parent's peak in it."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def extra_bytes(way: Callable[[Inputs], None], inputs: Inputs) -> int:
    """Rise of the peak resident set during one call; the peak is reset just before it."""
    way(make_inputs(WARM_UP_SEQUENCES, LONGEST))
    ctypes.CDLL(None).malloc_trim(0)  # or what the inputs' making freed would hide what is taken
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes("VmRSS")
    way(inputs)
    return resident_bytes("VmHWM") - before


def extra_bytes_in_child(options: argparse.Namespace, wheel: Path, way: str) -> int:
    command = [sys.executable, "-m", "bench.compare", f"--memory-of={way}", f"--wheel={wheel}"]
    command += [f"--sequences={options.sequences}", f"--longest={options.longest}"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(options: argparse.Namespace, wheel: Path) -> Result:
    inputs = make_inputs(options.sequences, options.longest)
    tokens, verl = inputs.rollout.size, verl_way(load(wheel))
    ways = (ours, verl, analysis)
    for way in ways:  # compiles, and warms up
        way(inputs)
    # Alternating, so that a change of clock or load meets all ways.
    rounds = [[seconds(way, inputs) for way in ways] for _ in range(options.repeats)]
    ratios = [verl_s / ours_s for ours_s, verl_s, _ in rounds]
    ours_s, verl_s, analysis_s = (median(way) for way in zip(*rounds, strict=True))
    memory = {way: extra_bytes_in_child(options, wheel, way) for way in ("ours", "verl")}
    return Result(
        tokens=tokens,
        ours_s=ours_s,
        verl_s=verl_s,
        ours_tokens_per_s=tokens / ours_s,
        verl_tokens_per_s=tokens / verl_s,
        ratio=median(ratios),
        ratio_lowest=min(ratios),
        ratio_highest=max(ratios),
        analysis_s=analysis_s,
        analysis_ratio=median(whole_s / ours_s for ours_s, _, whole_s in rounds),
        threads=torch.get_num_threads(),
        input_bytes=inputs.bytes_given,
        ours_extra_bytes=memory["ours"],
        verl_extra_bytes=memory["verl"],
        memory_share=memory["ours"] / inputs.bytes_given,
    )


def show(options: argparse.Namespace, found: Result) -> None:
    print(
        f"{options.sequences} sequences of {options.longest // 2} to {options.longest} tokens, "
        f"{found.tokens} in all, float32, {options.repeats} rounds, verl on {found.threads} threads"
    )
    print(f"ours   {found.ours_s * 1e3:7.1f} ms  {found.ours_tokens_per_s / 1e6:6.1f} Mtok/s")
    print(f"verl   {found.verl_s * 1e3:7.1f} ms  {found.verl_tokens_per_s / 1e6:6.1f} Mtok/s")
    print(f"ratio  {found.ratio:.1f} ({found.ratio_lowest:.1f} to {found.ratio_highest:.1f})")
    print(
        f"analysis with aliases and presets  {found.analysis_s * 1e3:.1f} ms, "
        f"{found.analysis_ratio:.1f} times the comparison"
    )
    print(
        f"memory beyond the input of {found.input_bytes / 1e6:.1f} MB: "
        f"ours {found.ours_extra_bytes / 1e6:.1f} MB ({found.memory_share:.2f} of it), "
        f"verl {found.verl_extra_bytes / 1e6:.1f} MB"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sequences", type=int, default=SEQUENCES)
    parser.add_argument("--longest", type=int, default=LONGEST)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--wheel", type=Path, help="verl's wheel; downloaded where not given")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-of", choices=["ours", "verl"], help=argparse.SUPPRESS)
    return parser.parse_args()


def run(options: argparse.Namespace, wheel: Path) -> None:
    if options.memory_of:
        way = ours if options.memory_of == "ours" else verl_way(load(wheel))
        print(extra_bytes(way, make_inputs(options.sequences, options.longest)))
        return
    found = measure(options, wheel)
    if options.json:
        print(json.dumps(asdict(found)))
    else:
        show(options, found)


def main() -> None:
    options = parse_arguments()
    if given := [name for name in THREAD_VARIABLES if name in os.environ]:
        print(f"unset {', '.join(given)}: a user has none of them set", file=sys.stderr)
    if options.wheel:
        run(options, options.wheel)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(options, download_wheel(Path(folder)))


if __name__ == "__main__":
    main()
