"""Settings of an engine, and the environment variables its process starts with."""

from __future__ import annotations

import os
import sys
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from driftscope_kernels.vllm_plugin.rounding import KERNELS_VARIABLE, ROUNDING_VARIABLE
from driftscope_probes.dtypes import Dtype
from driftscope_probes.request_model import RequestModel

EngineKind = Literal["vllm", "vllm-server", "hf"]
#: vLLM also has raw_logits and processed_logits; they are not log-probabilities.
LogprobsMode = Literal["raw_logprobs", "processed_logprobs"]
#: Of vLLM's many those that its CPU attention takes too, on processors with AVX-512 or AMX.
KvCacheDtype = Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"]
#: "invariant": driftscope's plugin for vLLM on CPU, vLLM's own batch-invariant mode on CUDA.
Kernels = Literal["stock", "invariant"]


class SamplingSettings(RequestModel):
    """How tokens are drawn. Request i is seeded with seed + i, whatever its batch."""

    max_tokens: int = Field(64, ge=1, le=131_072, description="response tokens per prompt")
    temperature: float = Field(1.0, ge=0.0, le=10.0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    top_k: int = Field(0, ge=0, description="0 keeps the whole vocabulary")
    seed: int = Field(0, ge=0, lt=2**31)
    ignore_eos: bool = Field(True, description="go on to max_tokens, so that cells have equal size")


class EngineSettings(RequestModel):
    """Engine options that change numerics, and what the engine needs to run."""

    kind: EngineKind = "vllm"
    kernels: Kernels = Field("stock", description="the engine's own or batch-invariant ones")
    logprobs_mode: LogprobsMode = "raw_logprobs"
    batch_size: int | None = Field(None, ge=1, le=4096, description="sequences decoded together")
    prefix_caching: bool | None = None
    chunked_prefill_tokens: int | None = Field(
        None, ge=16, le=1_048_576, description="most tokens in one engine step; None: vLLM's own"
    )
    compile: bool = Field(False, description="torch.compile / CUDA graphs instead of eager mode")
    kv_cache_dtype: KvCacheDtype | None = Field(None, description="None: as auto, the model's own")
    fp32_head: bool | None = Field(None, description="output layer in float32; None: model's own")
    cascade_attention: bool | None = None
    attention_split_kv: bool | None = Field(None, description="CPU only: split keys over threads")
    threads: int | None = Field(None, ge=1, le=1024, description="None: every core available")
    kv_cache_gib: float | None = Field(None, gt=0.0, le=65_536.0, description="None: as needed")
    server_url: str | None = Field(None, description="base URL for kind vllm-server")
    server_model: str | None = Field(None, description="model name the server answers to")

    @model_validator(mode="after")
    def _kernels_can_run(self) -> Self:
        if self.kernels == "invariant" and self.kind != "vllm":
            raise ValueError(
                f"kernels invariant is for engine vllm, not {self.kind}: the kernels are chosen in "
                "the process that runs the model"
            )
        if self.kernels == "invariant" and self.compile:
            raise ValueError("kernels invariant runs eagerly: leave compile off")
        return self


BYTES: dict[Dtype, int] = {"bf16": 2, "fp16": 2, "fp32": 4}
#: vLLM's largest default block; every sequence may leave one partly empty.
BLOCK_TOKENS = 128
#: vLLM keeps one block for padding; below this a tiny model would get no usable block.
LEAST_BYTES = 64 * 2**20
#: 64 sequences of 4,096 tokens of an 8B model. More only lets more sequences run at once.
MOST_BYTES = 32 * 2**30


def kv_cache_bytes(config: Any, *, dtype: Dtype, sequences: int, context: int) -> int:
    """Bytes for `sequences` of `context` tokens of a Hugging Face text config."""
    blocks = -(-context // BLOCK_TOKENS) + 1
    need = bytes_per_token(config, dtype) * blocks * BLOCK_TOKENS * (sequences + 1)
    return max(LEAST_BYTES, min(need, MOST_BYTES))


def bytes_per_token(config: Any, dtype: Dtype) -> int:
    """Keys and values of one token in all layers."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size: int = 2 * config.num_hidden_layers * heads * head_dim * BYTES[dtype]
    return size


#: The engine is compared with a transformers model, so its kernels round where that model does.
TRAINER_ROUNDING = "transformers"


def available_cores() -> int:
    """Cores this process may use: a container or `taskset` may leave fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def child_environment(engine: EngineSettings) -> dict[str, str]:
    """Threads, attention split and quiet: vLLM reads these once, at import."""
    environment = {
        "OMP_NUM_THREADS": str(engine.threads or available_cores()),
        # One process: its memory is freed when the child exits, and no worker can outlive it.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "HF_HUB_OFFLINE": "1",  # the model is a local folder by now; nothing else may be fetched
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Set even for stock kernels: a variable in the user's shell must not override the request.
        KERNELS_VARIABLE: engine.kernels,
        ROUNDING_VARIABLE: TRAINER_ROUNDING,  # used by invariant kernels only
    }
    if not engine.compile:
        # vLLM compiles two helpers of its sampler even in eager mode: that takes a C++ compiler and
        # 20 s at the first call, for the rank of a token. Uncompiled they give the same bits.
        environment["TORCHDYNAMO_DISABLE"] = "1"
    if engine.attention_split_kv is not None:
        environment["VLLM_CPU_ATTN_SPLIT_KV"] = str(int(engine.attention_split_kv))
    return environment
