"""`explain --dumps A B`: two folders of captured tensors, compared without running a model.

In: two folders. Out: an ExplainReport in which A stands where the engine stands and B where the
trainer does. Tensors are read in a process of its own, so that nothing here needs torch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.device.environment import environment
from driftscope_probes.explain.report import ExplainReport
from driftscope_probes.progress import ProgressSink, discard

CHILD: Final = "driftscope_probes.explain.dumps.comparing"


def explain_dumps(
    left: Path, right: Path, progress: ProgressSink = discard, workdir: Path | None = None
) -> ExplainReport:
    """Raises ProbeError: a folder cannot be read. `workdir`: for the child's log; None: discarded.

    Dumps of other tokens are no error but the verdict `not_comparable`.
    """
    if workdir is None:
        with tempfile.TemporaryDirectory(prefix="driftscope-dumps-") as folder:
            return explain_dumps(left, right, progress, Path(folder))
    started = time.monotonic()
    child = ChildProcess(
        CHILD,
        {"left": str(left), "right": str(right)},
        workdir,
        explain_crash=explain_probe_crash,
        on_progress=progress,
    )
    found: Mapping[str, Any] = child.wait()
    timing = {**found["timing"], "total_s": time.monotonic() - started}
    return ExplainReport.read({**found, "environment": environment(), "timing": timing})
