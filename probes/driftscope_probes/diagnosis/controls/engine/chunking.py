"""Whole prefill: every prompt is read in one step.

In: a Bench. Out: clean where the gap goes with the pieces, that to the trainer or that between
decoding and reading.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import AS_IS_ENGINE, EngineChange, Gap, gap_of

#: vLLM's own budget of one step on a CPU, where nothing is asked; a GPU's is larger.
USUAL_STEP_TOKENS = 2048


def whole_prefill(bench: Bench) -> Measurement:
    asked = bench.sides.engine.chunked_prefill_tokens or USUAL_STEP_TOKENS
    sequences = bench.sample().sequences
    most = sum(map(len, sequences.prompts)) + sum(map(len, sequences.responses))
    if most <= asked:
        raise NotExercised(
            f"all prompts have {most} tokens, which the engine reads in one step of {asked}.",
            remedy="give longer prompts, or the engine's own chunked_prefill_tokens.",
        )
    whole = EngineChange(settings=(("chunked_prefill_tokens", max(most, USUAL_STEP_TOKENS)),))
    found = bench.fallen(bench.gap(engine=whole), "prompts read whole")
    if found.outcome == "clean":
        return found
    return _of_reading(bench, whole) or found


def _of_reading(bench: Bench, whole: EngineChange) -> Measurement | None:
    """Clean where only what the engine reads of a prompt suffers from the pieces."""
    pieces = bench.agree(_decoded_and_read(bench, AS_IS_ENGINE), "decoded and read in pieces")
    if pieces.outcome == "clean":
        return None
    read = bench.agree(_decoded_and_read(bench, whole), "decoded and read whole")
    return read if read.outcome == "clean" else None


def _decoded_and_read(bench: Bench, change: EngineChange) -> Gap:
    sampled = bench.sample(change)
    return gap_of(sampled.logprobs, bench.rescore(sampled.sequences, change))


WHOLE_PREFILL = Control(
    name="whole_prefill",
    title="Read every prompt in one piece",
    separates="Errors at the borders of prefill chunks from all others.",
    null="the gap stays: sigma 0.027 with chunks of 32 and whole (tiny Llama, bf16).",
    cost_s=7.0,
    positive="clean",
    points_to={"chunked_prompt_logprobs": 0.95, "ssm_state_dtype": 0.8},
    run=whole_prefill,
    needs=frozenset({"other_launches"}),
)
