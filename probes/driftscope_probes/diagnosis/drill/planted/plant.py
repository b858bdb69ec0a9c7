"""Plant: one fault of function that a child process puts into its own engine or trainer.

In: a name, a size, and what the fault needs. Out: Plant, and the environment variable that hands
it to the child. Controls and the product's sessions know nothing of it. Free of torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

VARIABLE = "PLANTED_SYSTEM"
Side = Literal["engine", "trainer"]
#: Modules of the children that plant before they serve: EngineSide and TrainerSide of a bench are
#: started with these in place of the product's own.
ENGINE_CHILD = "driftscope_probes.diagnosis.drill.planted.engine_child"
TRAINER_CHILD = "driftscope_probes.diagnosis.drill.planted.trainer_child"


@dataclass(frozen=True, slots=True)
class Plant:
    """`size` means what the fault says: bits that are kept, a factor, an epsilon."""

    side: Side
    fault: str  # name in ENGINE_FAULTS or TRAINER_FAULTS
    size: float
    #: Counts launches in a file here, and may hold older weights; a folder of this case alone.
    folder: str = ""
    prompts: tuple[tuple[int, ...], ...] = ()  # that an engine served before it was asked

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Plant:
        fields = json.loads(text)
        prompts = tuple(map(tuple, fields["prompts"]))
        return Plant(**{**fields, "prompts": prompts})


@contextmanager
def planted(plant: Plant | None) -> Iterator[None]:
    """Children started within it plant the fault; None: nothing is planted."""
    if plant is None:
        yield
        return
    os.environ[VARIABLE] = plant.to_json()
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def own_plant(side: Side) -> Plant | None:
    """In the child: what it has to plant, or None where the fault is the other side's."""
    text = os.environ.get(VARIABLE)
    plant = None if text is None else Plant.from_json(text)
    return plant if plant is not None and plant.side == side else None
