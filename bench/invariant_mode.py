"""Forward and backward of SmolLM2 on 512 tokens: invariant mode against stock, paired, by dtype.

Usage: `python bench/invariant_mode.py [MODEL_FOLDER] [--dtypes bf16,fp32,fp16] [--rounds N]`.
Both sides run in turn on the threads that OMP_NUM_THREADS gives; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from driftscope_kernels.invariant_mode import invariant_mode
from driftscope_probes.dtypes import TORCH_NAMES, Dtype
from driftscope_probes.models.cache import models_dir

TOKENS = 512
WARM_UP_TOKENS = 32
Mode = Callable[[], AbstractContextManager[Any]]


def seconds(model: Any, ids: torch.Tensor, mode: Mode) -> tuple[float, float]:
    """Forward and backward of the mean log-probability of the next token."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    with mode():
        logits = model(input_ids=ids, use_cache=False).logits
        loss = F.cross_entropy(logits[0, :-1].float(), ids[0, 1:])
        forward = time.perf_counter()
        torch.autograd.backward(loss)
    return forward - started, time.perf_counter() - forward


def compare(folder: Path, dtype: Dtype, rounds: int) -> None:
    torch_dtype = getattr(torch, TORCH_NAMES[dtype])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch_dtype).train()
    ids = torch.randint(model.config.vocab_size, (1, TOKENS), generator=torch.manual_seed(0))
    modes: dict[str, Mode] = {"stock": nullcontext, "invariant": invariant_mode}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in modes}
    for mode in modes.values():
        seconds(model, ids[:, :WARM_UP_TOKENS], mode)
    for _ in range(rounds):
        for name, mode in modes.items():
            measured[name].append(seconds(model, ids, mode))
    stock, ours = (
        [statistics.median(part) for part in zip(*measured[name], strict=True)] for name in modes
    )
    print(
        f"{dtype:5} stock {stock[0]:.2f} + {stock[1]:.2f} s, invariant {ours[0]:.2f} + "
        f"{ours[1]:.2f} s: {sum(ours) / sum(stock):.2f} times stock "
        f"(forward {ours[0] / stock[0]:.2f}, backward {ours[1] / stock[1]:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=models_dir() / "smollm2-135m")
    parser.add_argument("--dtypes", default="bf16,fp32,fp16")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    print(f"{TOKENS} tokens, forward + backward, {torch.get_num_threads()} thread(s)")
    for dtype in given.dtypes.split(","):
        compare(given.folder, dtype, given.rounds)


if __name__ == "__main__":
    main()
