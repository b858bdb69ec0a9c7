"""Child process of an engine with a planted fault: the product's own session behind it.

    python -m driftscope_probes.diagnosis.drill.planted.engine_child WORKDIR

The plant is in the environment (plant.VARIABLE). Every engine that the session opens gets it.
"""

from __future__ import annotations

from typing import Any

from driftscope_probes.children import child_main
from driftscope_probes.diagnosis.drill.planted.engine_faults import ENGINE_FAULTS
from driftscope_probes.diagnosis.drill.planted.plant import Plant, own_plant
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.sessions import run_session
from driftscope_probes.engines.vllm_in_process import VllmInProcess


def plant_in_engines(plant: Plant) -> None:
    opened: Any = VllmInProcess.__init__
    fault = ENGINE_FAULTS[plant.fault]

    def opened_with_fault(self: VllmInProcess, task: RolloutTask) -> None:
        opened(self, task)
        fault(self, plant)

    # The session knows nothing of faults: it opens engines by this very class.
    VllmInProcess.__init__ = opened_with_fault  # type: ignore[method-assign]


if __name__ == "__main__":
    own = own_plant("engine")
    if own is not None:
        plant_in_engines(own)
    child_main(run_session.run)
