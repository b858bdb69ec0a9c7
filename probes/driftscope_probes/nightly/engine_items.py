"""Process entry: one axis of an engine after the other, on the engines that they share.

    python -m driftscope_probes.nightly.engine_items WORKDIR

request.json: {"units": [DeterminismRequest of one axis, dtype and choice of kernels], "model"}.
Out: for every unit a finding with {"axis": its AxisReport}.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main
from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.errors import ProbeError
from driftscope_probes.nightly.shared_process import FindingTeller
from driftscope_probes.progress import Progress, ProgressSink, scaled


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    from driftscope_probes.determinism.run import open_runner, run_axes
    from driftscope_probes.engines.sessions.runners import Memory
    from driftscope_probes.models.fetch import resolve
    from driftscope_probes.tokenization import prompt_text

    units = [DeterminismRequest(**unit) for unit in request["units"]]
    progress(Progress("preparing prompts", 0.0))
    model = resolve(request["model"])
    text = prompt_text(model.path)
    # All units ask one engine kind and, of servers, one address.
    runner = open_runner(units[0], model.path, workdir)
    try:
        # Outputs of one axis are reused by the next.
        memory = Memory(runner)
        teller = FindingTeller(len(units), progress)
        for number, unit in enumerate(units):
            stage = f"{unit.engine_dtypes[0]} {unit.kernels} {unit.chosen_axes[0]}"
            teller.began(number, stage)
            began = time.perf_counter()
            part = scaled(progress, number / len(units), (number + 1) / len(units))
            try:
                (result,) = run_axes(unit, text, memory, part)
                finding: dict[str, Any] = {"axis": result.to_dict()}
            except ProbeError as error:
                finding = {"missing": error.message}
            teller.done(number, stage, {**finding, "seconds": time.perf_counter() - began})
    finally:
        runner.close()
    return {}


if __name__ == "__main__":
    child_main(run)
