"""Control recorded_generation: what a fresh engine on the trainer's weights would have said.

Greedy tokens are compared up to where a response parts. Parting at a near tie says nothing: there
the two first tokens are closer than rounding moves them. A recorded step was sampled: its tokens
are scored by the fresh engine instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import EXPLAINS_FROM, Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import EngineChange, Recorded, gap_of
from driftscope_probes.diagnosis.controls.weights.parting import near_ties, parts_at
from driftscope_probes.diagnosis.floor import AT_FLOOR_UP_TO

#: Of the tokens of both responses: miles' check of a weight update asks for as many.
MATCHING_FROM: Final = 0.9


def _run(bench: Bench) -> Measurement:
    recorded = bench.known.recorded
    return _greedy(bench) if recorded is None else _scored(bench, recorded)


def _fresh(bench: Bench) -> EngineChange:
    """Of the same folder a launch of its own: the engine may have been updated, slept, reloaded."""
    sides = bench.sides
    alike = sides.engine_model == sides.trainer_model and sides.adapter is None
    return EngineChange(weights="trainer", launch=1 if alike else 0)


def _greedy(bench: Bench) -> Measurement:
    anew = _fresh(bench)
    ours, fresh = bench.sample(EngineChange(greedy=True)), bench.sample(replace(anew, greedy=True))
    parted = [
        parts_at(one, other)
        for one, other in zip(ours.sequences.responses, fresh.sequences.responses, strict=True)
    ]
    ties = near_ties(bench, ours, fresh, parted, anew)
    lengths = [len(response) for response in ours.sequences.responses]
    equal = sum(length if at is None else at for length, at in zip(lengths, parted, strict=True))
    counted = sum(
        at if at is not None and index in ties else length
        for index, (length, at) in enumerate(zip(lengths, parted, strict=True))
    )
    if counted == 0:
        raise NotExercised(
            "every response parts at a near tie with its first token.",
            remedy="give prompts that the model answers with some certainty.",
        )
    fraction = equal / counted
    truly = sum(at is not None for at in parted) - len(ties)
    return Measurement(
        "clean" if fraction >= MATCHING_FROM else "dirty",
        "greedy tokens equal to those of a fresh engine on the trainer's weights",
        fraction,
        f"at least {MATCHING_FROM:g}",
        (
            Evidence("responses that part", truly, f"0 of {len(parted)}, near ties not counted"),
            Evidence("responses that part at a near tie", len(ties), "any number"),
        ),
    )


def _scored(bench: Bench, recorded: Recorded) -> Measurement:
    sampling, engine = bench.sides.sampling, bench.sides.engine
    if engine.logprobs_mode == "processed_logprobs" and sampling.temperature not in (0.0, 1.0):
        raise NotExercised(
            "the recorded values are behind a temperature, an engine's values of a prompt are not.",
            remedy="record raw log-probabilities (logprobs_mode raw_logprobs).",
        )
    whole = gap_of(recorded.rollout, recorded.trainer)
    gap = gap_of(recorded.rollout, bench.rescore(recorded.sequences, _fresh(bench)))
    bound = max(AT_FLOOR_UP_TO * bench.floor_sigma, EXPLAINS_FROM * whole.sigma)
    return Measurement(
        "clean" if gap.sigma <= bound else "dirty",
        "sigma, the recorded engine against a fresh one on the trainer's weights",
        gap.sigma,
        f"up to {bound:.2g}",
        (Evidence("sigma, recorded engine against recorded trainer", whole.sigma, "the gap"),),
    )


RECORDED_GENERATION = Control(
    name="recorded_generation",
    title="Let a fresh engine on the trainer's weights answer, and compare the tokens",
    separates="Wrong weights in the engine, however they came there, from differences that leave "
    "the tokens alone.",
    null="Healthy pairs say the same: 1.0 of the greedy tokens, near ties not counted.",
    cost_s=5.0,
    positive="dirty",
    points_to={
        "stale_engine_weights": 0.8,
        "other_checkpoint": 0.9,
        "dropped_tensor_on_reload": 0.8,
        "lora_not_applied": 0.8,
        "quantized_weights": 0.7,
        "sleep_wake_corruption": 0.6,
        "resume_mismatch": 0.7,
        "policy_staleness": 0.6,
        "lora_merge_rounding": 0.1,
        "sub_ulp_update": 0.05,
    },
    otherwise=0.1,
    needs=frozenset({"other_launches"}),
    run=_run,
)
