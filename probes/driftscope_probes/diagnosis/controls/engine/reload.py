"""Reload of the same weights into the running engine, as a sync does it.

In: a Bench. Out: dirty where the engine then computes something else.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.engine.comparison import agrees_after
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised

#: An error so many times the gap is not in it: the engine under diagnosis has not been through
#: such a reload. What a reload does to the tiny MoE is 45 times a rounded router's gap; what one
#: adds to an engine that reloads spoilt before is of the gap's own size.
NOT_IN_THE_GAP = 10.0


def reload_same_weights(bench: Bench) -> Measurement:
    measured = agrees_after(bench, "reload", "before a reload of the same weights against after")
    times = measured.value / max(bench.base.sigma, bench.floor_sigma)
    if measured.outcome == "dirty" and times > NOT_IN_THE_GAP:
        raise NotExercised(
            f"a reload of the same weights moves this engine by sigma {measured.value:.2g}, "
            f"{times:.0f} times the difference looked at: a fault, but not the one in it.",
            remedy="start the engine anew instead of reloading its weights, or load them with "
            "kernels invariant.",
        )
    return measured


RELOAD_SAME_WEIGHTS = Control(
    name="reload_same_weights",
    title="Reload the same weights into the engine",
    separates="Tensors lost, left old or laid out wrongly by a reload from weights that were "
    "never sent.",
    null="sigma 0, equal bits (tiny Llama in bf16 and fp32, SmolLM2 in bf16). The tiny MoE moves "
    "by 2.8: vLLM 0.32 on CPU does lose its experts' layout in a reload.",
    cost_s=12.0,
    positive="dirty",
    points_to={
        # A tensor that the sync lost on its way is in no folder of the engine's.
        "dropped_tensor_on_reload": 0.5,
        "corrupt_reload_moe_layout": 0.95,
        # Loading brings back what a sleep had lost.
        "sleep_wake_corruption": 0.8,
        # An old copy of the same weights is no old copy.
        "reload_alias": 0.2,
    },
    run=reload_same_weights,
    needs=frozenset({"other_launches"}),
)
