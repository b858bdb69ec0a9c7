"""Sleep and wake: the engine lets go of its memory and takes it back.

In: a Bench. Out: dirty where it then computes something else.

vLLM on a CPU keeps its weights in sleep: what is tried there is the pause and the dropped cache.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.engine.comparison import agrees_after
from driftscope_probes.diagnosis.controls.measurement import Measurement


def sleep_wake(bench: Bench) -> Measurement:
    return agrees_after(bench, "sleep_wake", "before a sleep against after it")


SLEEP_WAKE = Control(
    name="sleep_wake",
    title="Put the engine to sleep and wake it",
    separates="Weights, buffers or scales lost in a sleep from those that were wrong before.",
    null="sigma 0, equal bits (tiny Llama in bf16 and fp32, tiny MoE and SmolLM2 in bf16).",
    cost_s=12.0,
    positive="dirty",
    points_to={"sleep_wake_corruption": 0.95, "fp8_kv_scales": 0.2, "lora_not_applied": 0.2},
    run=sleep_wake,
    needs=frozenset({"other_launches"}),
)
