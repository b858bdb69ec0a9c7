from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from driftscope_probes.mismatch.frameworks.blocks import LONGEST_BLOCK, block_sums, token_blocks
from driftscope_probes.mismatch.number import LONGEST_DOT, dot

# How long each thread of the process ran, in ns; OpenBLAS's own are there from the start.
OTHER_THREADS = """
import json, os, pathlib
import numpy as np
from driftscope_probes.mismatch import compare

def ran() -> int:
    tasks = [t for t in pathlib.Path("/proc/self/task").iterdir() if t.name != str(os.getpid())]
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks)

rng = np.random.default_rng(0)
found = {}
for sequences in (512, 1024, 4096, 20_000):
    limits = np.concatenate([[0], np.cumsum(rng.integers(1, 8, sequences))])
    rollout = -rng.random(limits[-1])
    arrays = rollout, rollout * 1.01, limits
    compare(*arrays)
    before = ran()
    compare(*arrays)
    found[sequences] = ran() - before
print(json.dumps(found))
"""


@pytest.mark.parametrize("kernels", ["Haswell", pytest.param("SkylakeX", marks=pytest.mark.avx512)])
def test_a_comparison_wakes_no_thread_of_blas(kernels: str) -> None:
    """Awake, they spin for tens of milliseconds and take the core that the next pass needs."""
    wish = {"OPENBLAS_CORETYPE": kernels, "OPENBLAS_NUM_THREADS": "4", "OMP_NUM_THREADS": "4"}
    command = [sys.executable, "-c", OTHER_THREADS]
    child = subprocess.run(
        command, env=os.environ | wish, check=True, capture_output=True, text=True
    )
    assert set(json.loads(child.stdout).values()) == {0}


@pytest.mark.parametrize("count", [0, 1, 127, 129, 10_000, 10_001, 12_345, 99_999, 1_234_567])
def test_block_sums_are_numpys_to_the_last_bit(count: int) -> None:
    rows = np.random.default_rng(count).normal(size=(2, count))
    sums = block_sums(count, lambda block: rows[:, block].sum(axis=1))
    assert sums.tolist() == rows.sum(axis=1).tolist()
    assert max(block.stop - block.start for block in token_blocks(count)) <= LONGEST_BLOCK


@pytest.mark.parametrize("count", [0, 3, LONGEST_DOT, LONGEST_DOT + 1, 3 * LONGEST_DOT])
def test_dot(count: int) -> None:
    first, second = np.random.default_rng(count).normal(size=(2, count))
    assert dot(first, second) == pytest.approx(np.dot(first, second), rel=1e-12, abs=1e-12)
