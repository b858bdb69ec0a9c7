"""Both sides in float32: what arithmetic makes is gone there, and what the weights make is left.

In: a bench, and a change of one side. Out: a Measurement of how much of the difference goes.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.bench import FALLEN_TO, NOT_FALLEN_FROM, Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import EngineChange, TrainerChange
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO, prior_floor

ENGINE: Final = EngineChange(dtype="fp32")
TRAINER: Final = TrainerChange(mode="fp32", quiet=True)


def fallen_in_float32(
    bench: Bench, what: str, *, engine: EngineChange = ENGINE, trainer: TrainerChange = TRAINER
) -> Measurement:
    """clean: with the change, both sides' weights are the same but for rounding of float32.

    Raises NotExercised where they are without it, too.
    """
    floor = prior_floor("fp32", "fp32", moe=bench.known.mixture_of_experts).sigma
    as_it_is = bench.gap(ENGINE, TRAINER)
    if as_it_is.sigma <= AT_FLOOR_UP_TO * floor:
        raise NotExercised(
            f"in float32 the two sides are equal as they are (sigma {as_it_is.sigma:.2g}): their "
            "weights are the same, and what differs is arithmetic.",
            remedy="look at kernels and dtypes instead of weights.",
        )
    gap = bench.gap(engine, trainer)
    at_floor = min(AT_FLOOR_UP_TO * floor, NOT_FALLEN_FROM * as_it_is.sigma)
    bound = max(at_floor, FALLEN_TO * as_it_is.sigma)
    beside = Evidence(
        "sigma, both sides in float32 as they are",
        float(f"{as_it_is.sigma:.3g}"),
        f"up to {AT_FLOOR_UP_TO * floor:.2g} where the weights are the same",
    )
    return Measurement(
        "clean" if gap.sigma <= bound else "dirty",
        f"sigma in float32, {what}",
        gap.sigma,
        f"up to {bound:.2g}",
        (beside,),
    )
