"""Every mode of the loop, one after another, into one page and one table.

    make loop        # five modes, and three under stress
    make loop-quick  # two modes, a few steps

Each run is a run of the service whose data lie beside the page; `driftscope serve --data-dir` shows
them. What a mode differs in is the table of `modes.py`; model, prompts, seed, order are the same.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import mean, median

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from examples.on_policy_loop.loop import LoopResult  # noqa: E402
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
    """One run, and the numbers of it that the table shows."""

    stressed: bool
    result: LoopResult

    @property
    def label(self) -> str:
        return self.result.mode + (" (stress)" if self.stressed else "")

    @property
    def kl_k3(self) -> float:
        """Mean over the steps, nats."""
        return mean(_known(self.result.series("kl_k3")) or [nan])

    @property
    def abs_diff_max(self) -> float:
        """Of all tokens, nats."""
        return max(_known(self.result.series("abs_diff_max")), default=nan)

    @property
    def last_reward(self) -> float:
        return mean(_known(self.result.series("reward"))[-LAST_STEPS:])

    @property
    def step_s(self) -> float:
        return median(_known(self.result.series("step_s")))

    @property
    def vocabulary(self) -> str:
        """At how many of the steps looked at whole distributions are equal."""
        looked = _known(self.result.series("full_vocabulary_equal"))
        return f"{sum(looked):g} of {len(looked)}"


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def run_mode(mode: str, stressed: bool, steps: int, address: str, folder: Path) -> Outcome:
    """In a process of its own: kernels are chosen when vLLM is loaded. Raises SystemExit."""
    name = f"on-policy-{mode.replace('+', '-')}{'-stress' if stressed else ''}"
    command = [sys.executable, str(RUN), "--json", f"--mode={mode}", f"--steps={steps}"]
    command += [f"--run={name}", *(STRESS if stressed else ())]
    with (folder / f"{name}.log").open("w") as log:
        done = subprocess.run(
            command, env={**os.environ, "DRIFTSCOPE_URL": address}, stdout=subprocess.PIPE,
            stderr=log, text=True,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: see {log.name}")
    (folder / f"{name}.json").write_text(done.stdout, encoding="utf-8")
    return Outcome(stressed, LoopResult.read(done.stdout))


def table(outcomes: list[Outcome]) -> str:
    head = (
        f"{'mode':<18} {'KL k3':>10} {'max |Δ|':>10} {'reward':>7} {'s/step':>7} {'vocabulary':>11}"
    )
    rows = [head]
    for one in outcomes:
        rows.append(
            f"{one.label:<18} {one.kl_k3:>10.3g} {one.abs_diff_max:>10.3g} "
            f"{one.last_reward:>7.3f} {one.step_s:>7.2f} {one.vocabulary:>11}"
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
