"""Control older_weights: the trainer's forward with the weights of earlier steps."""

from __future__ import annotations

from dataclasses import replace

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import TrainerChange


def _run(bench: Bench) -> Measurement:
    """The engine's tokens once more per checkpoint; the nearest one counts."""
    gaps = [
        bench.gap(trainer=TrainerChange(weights=index, quiet=True))
        for index in range(len(bench.sides.older_models))
    ]
    nearest = min(range(len(gaps)), key=lambda index: gaps[index].sigma)
    name = bench.sides.older_models[nearest].name
    measured = bench.fallen(gaps[nearest], f"trainer at {name}, the nearest of {len(gaps)} older")
    every = tuple(
        Evidence(
            f"sigma, trainer at {folder.name}",
            float(f"{gap.sigma:.3g}"),
            f"{bench.base.sigma:.3g} with its own weights",
        )
        for folder, gap in zip(bench.sides.older_models, gaps, strict=True)
    )
    return replace(measured, evidence=every)


OLDER_WEIGHTS = Control(
    name="older_weights",
    title="Score the engine's tokens with the trainer at earlier checkpoints",
    separates="An engine that serves an earlier step from one that serves a damaged, rounded or "
    "other model.",
    null="Where the engine has the trainer's weights, an older checkpoint is further away: sigma "
    "0.21 against 0.024 in bf16 (tiny Llama, weights moved by 3 % of their size).",
    cost_s=1.0,
    positive="clean",
    points_to={
        "stale_engine_weights": 0.95,
        "policy_staleness": 0.9,
        # What bf16 rounded away never reached the engine: its weights are nearly the older ones.
        "sub_ulp_update": 0.7,
        "resume_mismatch": 0.5,
        # The base is the checkpoint from before the adapter.
        "lora_not_applied": 0.5,
    },
    needs=frozenset({"older_models"}),
    run=_run,
)
