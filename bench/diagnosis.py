"""What a diagnosis costs: beside the comparison of the same step, in one run, as ratios.

Steps of rounding with ids, entropies, positions and advantages. Each repetition times both, one
after the other; the ratio is the median of the repetitions' own.

    python bench/diagnosis.py [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.mismatch import compare
from driftscope_probes.tokens import Extras, Tokens

REPEATS = 11
#: Sequences × tokens: a debugging step, a small one, and 3.2M tokens.
SIZES = ((20, 100), (64, 1000), (512, 6250))
DTYPES = {"rollout_dtype": "bf16", "trainer_dtype": "bf16"}


@dataclass(frozen=True, slots=True)
class Row:
    tokens: int
    diagnosis_ms: float
    comparison_ms: float
    ratio: float  # diagnosis / comparison


def step(sequences: int, length: int) -> Observed:
    random = np.random.default_rng(0)
    tokens = sequences * length
    rollout = -random.exponential(1.0, tokens).astype(np.float32)
    noise = 0.03 * random.standard_normal(tokens) * (1 - np.exp(rollout))
    return Observed(
        Tokens(
            rollout,
            np.minimum(rollout + noise, 0).astype(np.float32),
            np.arange(0, tokens + 1, length),
            None,
            Extras(
                token_ids=random.integers(0, 50_000, tokens).astype(np.int32),
                entropy=random.exponential(1.0, tokens).astype(np.float32),
                position_ids=np.tile(np.arange(length), sequences).astype(np.int32) + 50,
            ),
        ),
        DTYPES,
        random.standard_normal(tokens).astype(np.float32),
    )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(sequences: int, length: int) -> Row:
    observed = step(sequences, length)
    tokens = observed.tokens

    def comparison() -> object:
        return compare(tokens.rollout, tokens.trainer, tokens.cu_seqlens)

    def diagnosis() -> object:
        return diagnose(observed)

    comparison(), diagnosis()  # compiled, and in the caches
    pairs = [(seconds(diagnosis), seconds(comparison)) for _ in range(REPEATS)]
    return Row(
        sequences * length,
        1e3 * median(pair[0] for pair in pairs),
        1e3 * median(pair[1] for pair in pairs),
        median(one / other for one, other in pairs),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    rows = [measure(*size) for size in SIZES]
    if given.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    print("     tokens  diagnosis  comparison  ratio")
    for row in rows:
        print(
            f"{row.tokens:11,} {row.diagnosis_ms:7.1f} ms {row.comparison_ms:8.1f} ms "
            f"{row.ratio:6.2f}"
        )


if __name__ == "__main__":
    main()
