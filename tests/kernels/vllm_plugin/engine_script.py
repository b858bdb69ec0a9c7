"""Run in a process of its own by the fixture run_engines: vLLM, the same prompt in many batches.

    python engine_script.py REQUEST.json RESULT.json

One engine per variant, one after another. Of each: the target's tokens and log-probabilities alone
and among others, first on an empty prefix cache and then on what is left in it, alone without
sampling, and the log-probabilities of the same tokens read as a prompt, also with other rounding.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory

from driftscope_kernels.vllm_plugin import rounding
from driftscope_kernels.vllm_plugin.coverage import of_model

KV_BYTES = 256 * 2**20
#: Small engines live on beside each other: ending one takes longer than all that it computed.
KEPT: list[LLM] = []


def engine(request: dict[str, Any], variant: dict[str, Any]) -> LLM:
    return LLM(
        model=variant["model"],
        dtype=variant["dtype"],
        max_model_len=request["context"],
        skip_tokenizer_init=True,
        load_format="safetensors",
        generation_config="vllm",
        kv_cache_memory_bytes=KV_BYTES,
        use_tqdm_on_load=False,
        enforce_eager=True,
        disable_log_stats=True,
        **{"max_num_seqs": 64} | variant["engine"],
    )


def params(request: dict[str, Any], temperature: float, seed: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=request["max_tokens"],
        temperature=temperature,
        # vLLM 0.32 on CPU cannot rewind a request's generator, which a chunked prefill needs.
        seed=seed if temperature else None,
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
    )


def target_among(
    llm: LLM, request: dict[str, Any], temperature: float, others: int
) -> dict[str, Any]:
    """The target is in the middle; its seed stays its own."""
    prompts = request["others"][:others]
    place = others // 2
    prompts = [*prompts[:place], request["target"], *prompts[place:]]
    seeds = [1000 + i for i in range(len(prompts))]
    seeds[place] = 7
    outputs = llm.generate(
        [{"prompt_token_ids": ids} for ids in prompts],
        [params(request, temperature, seed) for seed in seeds],
        use_tqdm=False,
    )
    output = outputs[place].outputs[0]
    steps = zip(output.token_ids, output.logprobs, strict=True)
    logprobs = [step[token].logprob for token, step in steps]
    return {
        "tokens": list(output.token_ids),
        "logprobs": logprobs,
        "cached": outputs[place].num_cached_tokens,
    }


def rescored(llm: LLM, request: dict[str, Any], tokens: list[int]) -> list[float]:
    """Log-probabilities of `tokens` after the target, all in one prefill."""
    ids = [*request["target"], *tokens]
    asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    (output,) = llm.generate([{"prompt_token_ids": ids}], [asked], use_tqdm=False)
    steps = output.prompt_logprobs[len(request["target"]) :]
    return [step[token].logprob for token, step in zip(tokens, steps, strict=True)]


def of_variant(request: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    llm = engine(request, variant)
    result: dict[str, Any] = {"among": {}, "again": {}, "coverage": llm.apply_model(of_model)[0]}
    temperature, caching = variant["temperature"], variant["engine"]["enable_prefix_caching"]
    for others in variant["others"]:
        llm.reset_prefix_cache()
        result["among"][others] = target_among(llm, request, temperature, others)
        if caching:
            result["again"][others] = target_among(llm, request, temperature, others)
    tokens = result["among"][variant["others"][0]]["tokens"]
    result["rescored"] = rescored(llm, request, tokens)
    result["rescored_with"] = {}
    for text in variant["rounding"]:
        rounding.use(text)
        result["rescored_with"][text] = rescored(llm, request, tokens)
    if variant["rounding"]:
        rounding.use(rounding.asked())
    if temperature:
        llm.reset_prefix_cache()
        result["greedy"] = target_among(llm, request, 0.0, 0)
    if variant["reload"]:
        llm.collective_rpc("reload_weights", kwargs={"weights_path": variant["reload"]})
        llm.reset_prefix_cache()
        result["reloaded"] = target_among(llm, request, temperature, 0)
    if request["keep"]:
        KEPT.append(llm)
    else:
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()  # collects garbage too
    return result


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    results = [of_variant(asked, variant) for variant in asked["variants"]]
    Path(sys.argv[2]).write_text(json.dumps(results))
    os._exit(0)  # nothing is left to do, which would take seconds
