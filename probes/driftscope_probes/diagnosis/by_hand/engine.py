"""By hand: controls of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftscope_probes.diagnosis.by_hand.base import (
    ACTOR,
    NEMO_KWARGS,
    NEMO_VLLM,
    ROLLOUT,
    ByHand,
    Framework,
)

#: A step that leaves the weights as they are.
NO_LEARNING: Final[Mapping[Framework, str]] = {
    "verl": f"{ACTOR}.optim.lr=0",
    "trl": "GRPOConfig(learning_rate=0.0)",
    "nemo-rl": "policy.optimizer.kwargs.lr=0",
    "slime": "--lr 0",
    "prime-rl": "[trainer.optim] lr = 0.0",
}
PREFILL: Final = (
    "Send prompts and responses back as a prompt and ask for the log-probabilities of its tokens: "
    'vLLM: "max_tokens": 1, "prompt_logprobs": 0; SGLang: "return_logprob": true with '
    '"logprob_start_len" at the end of the prompt. '
)


ENGINE: Final[Mapping[str, ByHand]] = {
    "engine_batch_of_one": ByHand(
        "Send the same prompts again with the same seeds, one request at a time, and compare the "
        "values of the tokens that are the same.",
        "twice",
        {
            "vllm": "--max-num-seqs 1",
            "verl": f"{ROLLOUT}.max_num_seqs=1",
            "nemo-rl": f"{NEMO_KWARGS}.max_num_seqs=1",
            "slime": "--sglang-max-running-requests 1",
            "prime-rl": "[inference.vllm_extra] max_num_seqs = 1",
        },
    ),
    "decode_reprefill": ByHand(
        PREFILL + "Compare them with those that came with the sampled tokens.", "twice"
    ),
    "whole_prefill": ByHand(
        "Let the engine read a prompt in one piece: raise its tokens per step above the longest "
        "prompt, or send shorter prompts than that.",
        options={
            "vllm": "--no-enable-chunked-prefill --max-num-batched-tokens LONGEST_SEQUENCE",
            "verl": f"{ROLLOUT}.enable_chunked_prefill=False "
            f"{ROLLOUT}.max_num_batched_tokens=LONGEST_SEQUENCE",
            "nemo-rl": f"{NEMO_KWARGS}.enable_chunked_prefill=false",
            "slime": "--sglang-chunked-prefill-size -1",
            "prime-rl": "[inference.vllm_extra] enable_chunked_prefill = false",
        },
    ),
    "prefix_cache_off": ByHand(
        "Turn the engine's prefix cache off, or reset it after every update of the weights "
        "(vLLM: POST /reset_prefix_cache).",
        options={
            "vllm": "--no-enable-prefix-caching",
            "verl": f"{ROLLOUT}.enable_prefix_caching=False",
            "trl": "trl vllm-serve --enable_prefix_caching False",
            "nemo-rl": f"{NEMO_KWARGS}.enable_prefix_caching=false",
            "slime": "--sglang-disable-radix-cache",
            "prime-rl": "[inference] enable_prefix_caching = false",
        },
    ),
    "eager": ByHand(
        "Start the engine without compilation and without CUDA graphs.",
        options={
            "vllm": "--enforce-eager",
            "verl": f"{ROLLOUT}.enforce_eager=True",
            "trl": "trl vllm-serve --enforce_eager True",
            "nemo-rl": f"{NEMO_VLLM}.enforce_eager=true",
            "slime": "--sglang-disable-cuda-graph",
            "prime-rl": "[inference.model] enforce_eager = true",
        },
    ),
    "kv_split_off": ByHand(
        "Serve the model with another attention backend, which splits keys otherwise: vllm serve "
        "--attention-backend TRITON_ATTN (on a CPU: VLLM_CPU_ATTN_SPLIT_KV=0), to which the "
        "trainer connects as to any server.",
        options={
            "vllm": "--attention-backend TRITON_ATTN; on a CPU VLLM_CPU_ATTN_SPLIT_KV=0",
            "verl": f"+{ROLLOUT}.engine_kwargs.vllm.attention_backend=TRITON_ATTN",
            "nemo-rl": f"{NEMO_KWARGS}.attention_backend=TRITON_ATTN",
            "slime": "--sglang-attention-backend triton",
            "prime-rl": '[inference.vllm_extra] attention_backend = "TRITON_ATTN"',
        },
    ),
    "kv_cache_auto": ByHand(
        "Keep keys and values in the model's own dtype.",
        options={
            "vllm": "--kv-cache-dtype auto",
            "verl": f"+{ROLLOUT}.engine_kwargs.vllm.kv_cache_dtype=auto",
            "trl": "trl vllm-serve --kv_cache_dtype auto",
            "nemo-rl": f"{NEMO_VLLM}.kv_cache_dtype=auto",
            "slime": "--sglang-kv-cache-dtype auto",
            "prime-rl": '[inference.model] kv_cache_dtype = "auto"',
        },
    ),
    "engine_restart": ByHand(
        PREFILL + "Stop the engine, start it with the same options and weights, and ask again: "
        "the values of the two launches are compared.",
        "twice",
    ),
    "second_replica": ByHand(
        PREFILL + "Ask two replicas that run at the same time, each by its own address.", "twice"
    ),
    "sleep_wake": ByHand(
        "Ask the engine for the values of the same tokens before and after it slept (vLLM: POST "
        "/sleep and /wake_up with VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode), or train one "
        "step without sleep: dirty if the difference is gone.",
        "said",
        {
            "verl": f"{ROLLOUT}.free_cache_engine=False; dirty if the difference is gone",
            "trl": "GRPOConfig(vllm_enable_sleep_mode=False); dirty if the difference is gone",
            "slime": "--no-offload-rollout, without --colocate; dirty if the difference is gone",
        },
    ),
    "reload_same_weights": ByHand(
        "Train two steps with learning rate 0: the weights of the second are loaded over equal "
        "ones, dirty if its difference is not that of the first.",
        "said",
        {
            framework: f"{option}, two steps; dirty if the second is not as the first"
            for framework, option in NO_LEARNING.items()
        },
    ),
    "truncated_prompts": ByHand(
        "Sample from the same prompts cut to multiples of a tile (64, 96, 128 tokens) and one "
        "token beside them: dirty if the difference begins at one of these positions.",
        "said",
    ),
}
