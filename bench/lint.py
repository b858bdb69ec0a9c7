"""Time of `driftscope lint` on a model's folder, the start of Python included, and of a step's.

    python bench/lint.py [FOLDER]

The command runs before every training run and in hooks: it is to answer in half a second. A pushed
step waits for the lint of its metadata, which is to take 0.2 ms at most.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from driftscope_probes.lint.readers.step_metadata import settings_of_metadata
from driftscope_probes.lint.stated import stated_findings

DRIFTSCOPE = Path(sys.executable).with_name("driftscope")
RUNS = 10
LIMIT_S = 0.5
STEPS = 2000
STEP_LIMIT_S = 0.0002
METADATA = {
    **{"model": "qwen3", "rollout_dtype": "bf16", "trainer_dtype": "bf16", "temperature": "1.0"},
    **{"top_p": "1.0", "logprobs_mode": "processed_logprobs", "kv_cache_dtype": "fp8"},
}
CONFIG = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "torch_dtype": "bfloat16",
    "rope_theta": 1e6,
    "num_experts": 128,
}
GENERATION = {"temperature": 0.6, "top_k": 20, "top_p": 0.95}


def seconds(folder: Path) -> list[float]:
    """Of each run, in order; the first one may read from a cold disk."""
    took = []
    for _ in range(RUNS):
        start = time.perf_counter()
        done = subprocess.run([DRIFTSCOPE, "lint", folder], capture_output=True, check=False)
        took.append(time.perf_counter() - start)
        assert done.returncode in (0, 1), done.stderr
    return took


def seconds_of_a_step() -> float:
    """Mean over steps of one run, whose metadata differ in the version of the weights."""
    start = time.perf_counter()
    for step in range(STEPS):
        stated_findings(settings_of_metadata({**METADATA, "weights_version": str(step)}))
    return (time.perf_counter() - start) / STEPS


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else made)
        if folder == Path(made):
            (folder / "config.json").write_text(json.dumps(CONFIG))
            (folder / "generation_config.json").write_text(json.dumps(GENERATION))
        took = seconds(folder)
    median = statistics.median(took)
    print(f"driftscope lint FOLDER: median {median:.2f} s of {RUNS} ({max(took):.2f} s at most)")
    step = seconds_of_a_step()
    print(f"lint of a pushed step: {step * 1e6:.0f} µs")
    sys.exit(median > LIMIT_S or step > STEP_LIMIT_S)


if __name__ == "__main__":
    main()
