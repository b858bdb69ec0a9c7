"""A dead probe process, explained. Engines and trainer, its children, explain themselves."""

from __future__ import annotations

from driftscope_probes.child_process import Crash
from driftscope_probes.errors import EngineError, ProbeError


def explain_crash(crash: Crash) -> ProbeError:
    """Map signal and log to an error a user can act on."""
    if crash.signal_name:
        return EngineError(
            f"the probe was killed by {crash.signal_name}.",
            remedy="if nobody killed it, the machine probably ran out of memory (see dmesg): "
            "lower the number of prompts or tokens.",
        )
    return EngineError(
        f"the probe ended with exit code {crash.returncode}: {crash.last_line}",
        remedy="this is a fault of driftscope; report it with this log:\n" + crash.log_tail[-3000:],
    )
