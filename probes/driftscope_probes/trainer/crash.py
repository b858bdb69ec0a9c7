"""Why a trainer process died, in words a user can act on. In: Crash. Out: TrainerError."""

from __future__ import annotations

from driftscope_probes.child_process import Crash
from driftscope_probes.errors import TrainerError

#: What torch writes when an allocation fails, on CPU and on CUDA.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA out of memory", "OutOfMemoryError", "MemoryError")
LESS_MEMORY = (
    "use a smaller trainer micro_batch, fewer or shorter responses (max_tokens), one trainer dtype "
    "at a time, or a smaller model."
)


def explain_crash(crash: Crash) -> TrainerError:
    if any(pattern in crash.log_tail for pattern in OUT_OF_MEMORY):
        return TrainerError(f"the trainer ran out of memory: {crash.last_line}", remedy=LESS_MEMORY)
    if crash.signal_name == "SIGKILL":
        return TrainerError(
            "the trainer was killed by the system (SIGKILL), most likely because memory ran out.",
            remedy=LESS_MEMORY,
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
