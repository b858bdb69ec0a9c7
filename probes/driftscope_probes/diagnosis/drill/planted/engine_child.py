"""Child process of an engine with a planted fault: the product's own session with another desk.

    python -m driftscope_probes.diagnosis.drill.planted.engine_child WORKDIR

The plant is in the environment (plant.VARIABLE). Every engine that the session opens gets it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main, serve_questions
from driftscope_probes.diagnosis.drill.planted.engine_faults import ENGINE_FAULTS, prepared
from driftscope_probes.diagnosis.drill.planted.plant import Plant, own_plant
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.sessions.run_session import Desk
from driftscope_probes.engines.vllm_in_process import VllmInProcess
from driftscope_probes.progress import ProgressSink


def plant_in_engines(plant: Plant) -> None:
    """In every engine of this process, also in one that replaces another in mid-session."""
    opened: Any = VllmInProcess.__init__
    fault = ENGINE_FAULTS[plant.fault]

    def opened_with_fault(self: VllmInProcess, task: RolloutTask, **rest: Any) -> None:
        opened(self, prepared(plant, task), **rest)
        fault(self, plant, task)

    VllmInProcess.__init__ = opened_with_fault  # type: ignore[method-assign]


def run(request: dict[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    plant = own_plant("engine")
    if plant is not None:
        plant_in_engines(plant)
    serve_questions(Desk(Path(request["model_path"])).reply, progress)
    return {}


if __name__ == "__main__":
    child_main(run)
