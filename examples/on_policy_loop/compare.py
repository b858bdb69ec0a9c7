"""Every mode of the loop, one after another, into one page and one table.

    make loop        # five modes, and three under stress
    make loop-quick  # three modes of a few steps

Each run is a run of the service whose data lie beside the page; `driftscope serve --data-dir` shows
them. What a mode differs in is the table of `modes.py`; model, prompts, seed, order are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from examples.on_policy_loop.modes import MODES  # noqa: E402
from examples.on_policy_loop.page import write_page  # noqa: E402
from examples.on_policy_loop.service import service  # noqa: E402

RUN = Path(__file__).with_name("run.py")
#: Where the mismatch has most room to matter: larger steps, several of them from one rollout, and
#: responses half as long again.
STRESS = ("--learning-rate=2e-3", "--iterations=4", "--completion-tokens=48")
STRESSED_MODES = ("bf16", "bf16+tis", "exact")
QUICK_MODES = ("bf16", "exact")
STEPS, QUICK_STEPS = 60, 4
#: Mean reward of the last steps is what a run has reached.
LAST_STEPS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run, in the numbers that the table shows."""

    mode: str
    stressed: bool
    run: str
    wall_s: float
    kl_k3: tuple[float | None, ...]  # per step, nats
    abs_diff_max: tuple[float | None, ...]  # per step, nats
    reward: tuple[float | None, ...]
    grad_norm: tuple[float | None, ...]
    entropy: tuple[float | None, ...]  # nats
    step_s: float  # median
    vocabulary_equal: tuple[bool, ...]  # at the steps where whole distributions were compared

    @property
    def last_reward(self) -> float:
        last = [value for value in self.reward if value is not None][-LAST_STEPS:]
        return sum(last) / len(last)


def run_mode(mode: str, stressed: bool, steps: int, address: str, folder: Path) -> Outcome:
    """In a process of its own: kernels are chosen when vLLM is loaded. Raises SystemExit."""
    name = f"on-policy-{mode.replace('+', '-')}{'-stress' if stressed else ''}"
    command = [sys.executable, str(RUN), "--json", f"--mode={mode}", f"--steps={steps}"]
    command += [f"--run={name}", *(STRESS if stressed else ())]
    began = time.monotonic()
    with (folder / f"{name}.log").open("w") as log:
        done = subprocess.run(
            command, env={**os.environ, "DRIFTSCOPE_URL": address}, stdout=subprocess.PIPE,
            stderr=log, text=True,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: see {log.name}")
    wall = time.monotonic() - began
    rows = json.loads(done.stdout)["steps"]
    (folder / f"{name}.json").write_text(done.stdout, encoding="utf-8")
    seconds = [row["step_s"] for row in rows if row["step_s"] is not None]
    looked = (row["full_vocabulary_equal"] for row in rows)
    return Outcome(
        mode=mode,
        stressed=stressed,
        run=name,
        wall_s=wall,
        kl_k3=tuple(row["kl_k3"] for row in rows),
        abs_diff_max=tuple(row["abs_diff_max"] for row in rows),
        reward=tuple(row["reward"] for row in rows),
        grad_norm=tuple(row["grad_norm"] for row in rows),
        entropy=tuple(row["entropy"] for row in rows),
        step_s=median(seconds),
        vocabulary_equal=tuple(value for value in looked if value is not None),
    )


def table(outcomes: list[Outcome]) -> str:
    head = (
        f"{'mode':<18} {'KL k3':>10} {'max |Δ|':>10} {'reward':>7} {'s/step':>7} {'vocabulary':>11}"
    )
    rows = [head]
    for one in outcomes:
        kl = [value for value in one.kl_k3 if value is not None]
        largest = max((value for value in one.abs_diff_max if value is not None), default=None)
        equal = f"{sum(one.vocabulary_equal)} of {len(one.vocabulary_equal)}"
        rows.append(
            f"{one.mode + (' (stress)' if one.stressed else ''):<18} "
            f"{sum(kl) / len(kl) if kl else float('nan'):>10.3g} "
            f"{float('nan') if largest is None else largest:>10.3g} "
            f"{one.last_reward:>7.3f} {one.step_s:>7.2f} {equal:>11}"
        )
    return "\n".join(rows)


def machine() -> str:
    import torch

    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, one thread, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps of two modes")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "on-policy-loop")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    steps = QUICK_STEPS if options.quick else STEPS
    plan = [(mode, False) for mode in (QUICK_MODES if options.quick else MODES)]
    plan += [] if options.quick else [(mode, True) for mode in STRESSED_MODES]
    outcomes: list[Outcome] = []
    with service(options.output / "data") as address:
        for number, (mode, stressed) in enumerate(plan, start=1):
            under = " under stress" if stressed else ""
            print(f"[{number}/{len(plan)}] {mode}{under}, {steps} steps", flush=True)
            outcomes.append(run_mode(mode, stressed, steps, address, options.output))
            # After each: what has been measured is kept if a later run ends in an error.
            page = write_page(outcomes, machine(), options.output)
    print(table(outcomes))
    print(f"{page}\nruns: driftscope serve --data-dir {options.output / 'data'}")


if __name__ == "__main__":
    main()
