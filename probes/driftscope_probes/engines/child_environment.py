"""Environment variables of an engine's process: set before its libraries are imported."""

from __future__ import annotations

import os
import sys

from driftscope_kernels.vllm_plugin.rounding import KERNELS_VARIABLE, ROUNDING_VARIABLE
from driftscope_probes.engines.settings import EngineSettings

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
