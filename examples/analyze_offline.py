"""Write one step in the push format, read it back and compare its two sides without a service.

`driftscope analyze step.safetensors` shows the same file as tables. Usage: [FILE]
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from driftscope_probes.mismatch import compare

NUMBERS = ("abs_diff_mean", "abs_diff_max", "kl_k3", "prob_pearson", "ess_ratio_token")


def write_step(path: Path) -> None:
    """Four responses of eight tokens; the trainer computed in float32, the engine in bfloat16."""
    generator = np.random.default_rng(0)
    trainer = -generator.exponential(1.0, 32).astype(np.float32)
    tensors = {
        "rollout_logprobs": trainer + generator.normal(0.0, 0.01, 32).astype(np.float32),
        "trainer_logprobs": trainer,
        "cu_seqlens": np.arange(0, 33, 8),
    }
    save_file(tensors, path, {"rollout_dtype": "bf16", "trainer_dtype": "fp32"})


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "step.safetensors")
    if not path.exists():
        write_step(path)
    step = load_file(path)
    comparison = compare(
        step["rollout_logprobs"], step["trainer_logprobs"], step["cu_seqlens"], step.get("mask")
    ).to_dict()
    for name in NUMBERS:
        low, high = comparison["intervals"].get(name, (None, None))
        print(name, comparison[name], "" if low is None else f"95 %: {low} to {high}")


if __name__ == "__main__":
    main()
