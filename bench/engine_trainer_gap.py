"""What remains between vLLM with the plugin and a trainer in invariant mode, op by op.

    python bench/engine_trainer_gap.py [--models tiny-random-llama,…] [--dtypes bf16,fp16,fp32]

The engine samples with transformers' rounding, then reads the same tokens as prompts: with that
rounding, with one op on vLLM's, with vLLM's throughout, and with one op on transformers'. Printed
for each: mean |Δ| to the trainer's log-probabilities in nats, and the share that is bitwise equal.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftscope_kernels.vllm_plugin.rounding import OPS
from driftscope_probes.dtypes import TORCH_NAMES
from driftscope_probes.models.cache import models_dir

TINY_QWEN3 = "tiny-qwen3"
MODELS = ("tiny-random-llama", TINY_QWEN3, "tiny-random-moe", "smollm2-135m")
SEQUENCES, PROMPT_TOKENS, NEW_TOKENS = 4, (7, 33), 32
LEAST_VOCABULARY = 961  # of the models above
VARIANTS = (
    "transformers",
    *(f"transformers,{op}=vllm" for op in OPS),
    "vllm",
    *(f"vllm,{op}=transformers" for op in OPS),
)
ENVIRONMENT = {
    "DRIFTSCOPE_VLLM_KERNELS": "invariant",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "TORCHDYNAMO_DISABLE": "1",
}


@dataclass(frozen=True, slots=True)
class Engine:
    """What one engine gave."""

    sequences: list[list[int]]  # prompts with the tokens sampled after them
    prompt_lengths: list[int]
    decoded: list[float]  # log-probabilities of sampled tokens as they were sampled
    read: dict[str, list[float]]  # by rounding: of all tokens but the first of each sequence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="names or folders")
    parser.add_argument("--dtypes", default="bf16,fp16,fp32")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        folder, dtypes, result = given.serve
        serve(folder, dtypes.split(","), Path(result))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.models.split(","):
            folder = _folder(name, Path(scratch))
            for dtype, engine in engines(folder, given.dtypes, Path(scratch)).items():
                report(name, dtype, engine, trainer(folder, dtype, engine.sequences))


def report(name: str, dtype: str, engine: Engine, scored: list[list[float]]) -> None:
    print(f"\n{name} {dtype}, {sum(map(len, scored))} tokens{'':12}mean |Δ|    bitwise equal")
    sampled = [
        value
        for row, length in zip(scored, engine.prompt_lengths, strict=True)
        for value in row[length - 1 :]
    ]
    _line("transformers, as sampled", engine.decoded, sampled)
    for rounding, values in engine.read.items():
        if "experts=" not in rounding or "moe" in name:
            _line(rounding, values, [value for row in scored for value in row])


def _line(rounding: str, ours: list[float], theirs: list[float]) -> None:
    gaps = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
    print(f"  {rounding:34} {sum(gaps) / len(gaps):9.2e}    {equal / len(gaps):7.1%}", flush=True)


def engines(folder: Path, dtypes: str, scratch: Path) -> dict[str, Engine]:
    """By dtype, one after another in a process without numba, which vLLM 0.32 cannot bear."""
    result = scratch / "engines.json"
    subprocess.run(
        # -P: transformers would take this folder's kernels.py for a package of that name.
        [sys.executable, "-P", __file__, "--serve", str(folder), dtypes, str(result)],
        env={**os.environ, **ENVIRONMENT},
        check=True,
    )
    return {dtype: Engine(**values) for dtype, values in json.loads(result.read_text()).items()}


def serve(folder: str, dtypes: list[str], result: Path) -> None:
    """Child: one engine per dtype."""
    result.write_text(json.dumps({dtype: _engine(folder, dtype) for dtype in dtypes}))


def _engine(folder: str, dtype: Any) -> dict[str, Any]:
    import gc

    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    from driftscope_kernels.vllm_plugin import rounding

    llm = LLM(
        model=folder, dtype=TORCH_NAMES[dtype], max_model_len=128, skip_tokenizer_init=True,
        load_format="safetensors", generation_config="vllm", kv_cache_memory_bytes=64 * 2**20,
        use_tqdm_on_load=False, enforce_eager=True, enable_prefix_caching=False,
    )  # fmt: skip
    rounding.use("transformers")
    prompts = _prompts()
    sampling = [
        SamplingParams(
            max_tokens=NEW_TOKENS, seed=seed, ignore_eos=True, logprobs=0, detokenize=False
        )
        for seed in range(SEQUENCES)
    ]
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
    answers = [output.outputs[0] for output in outputs]
    sequences = [[*ids, *a.token_ids] for ids, a in zip(prompts, answers, strict=True)]
    read = {}
    for variant in VARIANTS:
        rounding.use(variant)
        read[variant] = _read(llm, sequences)
    llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
    cleanup_dist_env_and_memory()
    gc.collect()
    return {
        "sequences": sequences,
        "prompt_lengths": [len(ids) for ids in prompts],
        "decoded": [
            step[token].logprob
            for answer in answers
            for token, step in zip(answer.token_ids, answer.logprobs, strict=True)
        ],
        "read": read,
    }


def _read(llm: Any, sequences: list[list[int]]) -> list[float]:
    from vllm import SamplingParams

    asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in sequences], asked, use_tqdm=False)
    return [
        step[token].logprob
        for ids, output in zip(sequences, outputs, strict=True)
        for token, step in zip(ids[1:], output.prompt_logprobs[1:], strict=True)
    ]


def trainer(folder: Path, dtype: Any, sequences: list[list[int]]) -> list[list[float]]:
    """Log-probabilities of all tokens but the first, each sequence alone."""
    import torch
    from transformers import AutoModelForCausalLM

    from driftscope_kernels import ops
    from driftscope_kernels.invariant_mode import invariant_mode
    from driftscope_kernels.options import TRANSFORMERS

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, TORCH_NAMES[dtype])
    ).train()
    scored = []
    with torch.no_grad(), invariant_mode():
        for sequence in sequences:
            ids = torch.tensor(sequence)
            hidden = model.get_decoder()(input_ids=ids[None], use_cache=False).last_hidden_state
            result = ops.token_logprob(
                hidden[0, :-1], model.lm_head.weight, ids[1:], options=TRANSFORMERS.logprob
            )
            scored.append(result.logprob.tolist())
    return scored


def _prompts() -> list[list[int]]:
    draw = random.Random(0)
    return [
        [draw.randrange(3, LEAST_VOCABULARY) for _ in range(draw.randint(*PROMPT_TOKENS))]
        for _ in range(SEQUENCES)
    ]


def _folder(name: str, scratch: Path) -> Path:
    if name == TINY_QWEN3:
        return _save_qwen3(scratch / name)
    return Path(name) if Path(name).is_dir() else models_dir() / name


def _save_qwen3(folder: Path) -> Path:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=LEAST_VOCABULARY, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=512,
        initializer_range=0.2, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen3ForCausalLM(config).bfloat16().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
