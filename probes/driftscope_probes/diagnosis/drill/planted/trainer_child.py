"""Child process of a trainer with a planted fault: the product's own session with another desk.

    python -m driftscope_probes.diagnosis.drill.planted.trainer_child WORKDIR

The plant is in the environment (plant.VARIABLE).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.children import child_main
from driftscope_probes.diagnosis.drill.planted.plant import Plant, own_plant
from driftscope_probes.diagnosis.drill.planted.trainer_faults import TRAINER_FAULTS
from driftscope_probes.progress import ProgressSink
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.question import Forward
from driftscope_probes.trainer.run_session import TrainerDesk, serve


class PlantedDesk(TrainerDesk):
    def __init__(self, plant: Plant) -> None:
        super().__init__()
        self._plant = plant
        self._asked: Forward | None = None

    def load_model(self, forward: Forward) -> LoadedModel:
        loaded = super().load_model(forward)
        TRAINER_FAULTS[self._plant.fault](loaded, self._plant, self._now)
        return loaded

    def score(
        self, loaded: LoadedModel, forward: Forward, prompts: PromptBatch, rollout: Trace
    ) -> NDArray[np.float32]:
        self._asked = forward
        return super().score(loaded, forward, prompts, rollout)

    def _now(self) -> Forward:
        assert self._asked is not None, "a forward ran outside a question"
        return self._asked


def run(request: dict[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    plant = own_plant("trainer")
    return serve(TrainerDesk() if plant is None else PlantedDesk(plant), progress)


if __name__ == "__main__":
    child_main(run)
