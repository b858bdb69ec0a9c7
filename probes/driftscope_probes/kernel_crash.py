"""A dead kernel-check process, explained. Apart from its entry, which imports torch."""

from __future__ import annotations

from driftscope_probes.child_process import Crash
from driftscope_probes.errors import ProbeError

MODULE = "driftscope_probes.kernel_check"


class KernelError(ProbeError):
    """A kernel, or what offers it, failed or was killed."""


def explain_crash(crash: Crash) -> ProbeError:
    how = crash.signal_name or f"exit code {crash.returncode}: {crash.last_line}"
    return KernelError(
        f"the checker's process ended with {how}.",
        remedy="check one target and op at a time (--target, --op) to find the kernel that ends "
        "it; the end of its log:\n" + crash.log_tail[-3000:],
    )
