"""Second replica: two engines of the same settings and weights at the same time.

In: a Bench. Out: dirty where the second one computes something else than the first.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.engine.comparison import agrees_bitwise
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import EngineChange


def second_replica(bench: Bench) -> Measurement:
    return agrees_bitwise(bench, EngineChange(replica=1), "one replica against another")


SECOND_REPLICA = Control(
    name="second_replica",
    title="Ask a second replica, started beside the first",
    separates="A replica that differs from the others from a fault that all replicas have.",
    null="sigma 0, equal bits (tiny Llama in bf16 and fp32).",
    cost_s=12.0,
    positive="dirty",
    points_to={"replica_differs": 0.95, "autotune_per_launch": 0.95},
    run=second_replica,
    needs=frozenset({"other_launches"}),
)
