"""One mode of the loop: real TRL, real vLLM in this process, every step pushed to driftscope.

    python examples/on_policy_loop/run.py --mode exact --steps 60
    python examples/on_policy_loop/run.py --mode bf16 --steps 60 --json

A table, or {"mode", "steps": [{"step", "kl_k3", "abs_diff_max", "reward", "grad_norm", …}]}. KL and
|Δ| are the service's own record, reward and gradient norm TRL's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
# Read when torch and vLLM are loaded. One thread each: engine and trainer take turns.
for name, value in {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}.items():
    os.environ.setdefault(name, value)

with socket.socket() as free:
    # TRL would take 29500 for vLLM's rendezvous, as would another run beside this one.
    free.bind(("127.0.0.1", 0))
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(free.getsockname()[1]))

from examples.on_policy_loop.loop import LoopResult, LoopSettings  # noqa: E402
from examples.on_policy_loop.modes import MODES  # noqa: E402
from examples.on_policy_loop.planted import FAULTS  # noqa: E402
from examples.on_policy_loop.service import service  # noqa: E402
from examples.on_policy_loop.task import SMALL  # noqa: E402


def run_loop(settings: LoopSettings, address: str, run: str) -> LoopResult:
    # Loads torch, TRL and vLLM: after the arguments have been read, and with our environment.
    from examples.on_policy_loop.training import train

    with tempfile.TemporaryDirectory(prefix="on-policy-loop-") as folder:
        return train(settings, Path(folder), address, run)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=MODES, default="exact")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps (60)")
    parser.add_argument("--model", default=SMALL, help="small (made here) or smollm2-135m")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--iterations", type=int, default=1, help="optimiser steps per rollout")
    parser.add_argument("--completion-tokens", type=int, default=32)
    parser.add_argument("--micro-batch", type=int, default=16, choices=(1, 2, 4, 8, 16))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full-vocabulary-every", type=int, default=10)
    parser.add_argument("--fault", choices=FAULTS, help="of the weight sync, planted")
    parser.add_argument("--fault-at", type=int, default=20, help="step from which on (20)")
    parser.add_argument("--run", help="name of the run in the service (on-policy-MODE)")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "build" / "on-policy-loop")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.completion_tokens < 2 or options.iterations < 1:
        parser.error("--steps and --iterations are at least 1, --completion-tokens at least 2")
    return options


def as_table(result: LoopResult) -> str:
    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    rows = [
        f"{'step':>5} {'kl_k3':>10} {'max |Δ|':>10} {'reward':>8} {'grad':>8} {'entropy':>8}  cause"
    ]
    for step in result.steps:
        rows.append(
            f"{step.step:>5} {cell(step.kl_k3):>10} {cell(step.abs_diff_max):>10} "
            f"{cell(step.reward):>8} {cell(step.grad_norm):>8} {cell(step.entropy):>8}  "
            f"{step.cause or ''}"
        )
    return "\n".join(rows)


def main() -> None:
    options = parsed()
    settings = LoopSettings(
        MODES[options.mode], options.model, options.steps, options.learning_rate,
        options.iterations, options.completion_tokens, options.micro_batch, options.seed,
        options.full_vocabulary_every, options.fault, options.fault_at,
    )  # fmt: skip
    run = options.run or f"on-policy-{options.mode.replace('+', '-')}"
    # What TRL and vLLM print is progress; standard output is the result's.
    with service(options.data_dir) as address, contextlib.redirect_stdout(sys.stderr):
        result = run_loop(settings, address, run)
    print(json.dumps(asdict(result)) if options.json else as_table(result), flush=True)
    # vLLM's engine lives until the process ends, which would take seconds more.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
