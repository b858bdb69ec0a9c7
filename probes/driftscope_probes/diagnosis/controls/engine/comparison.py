"""Two runs of one engine against each other: what it decodes and what it reads.

In: a Bench and the change of either run. Out: the larger of two gaps. Free of torch.

Decoded tokens can be compared up to the first that differs; from there on the contexts differ. What
the engine reads are the tokens of the engine as it is, the same ones in both runs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement
from driftscope_probes.diagnosis.controls.sides import (
    AS_IS_ENGINE,
    OTHER_LAUNCH,
    EngineChange,
    Gap,
    Sampled,
)
from driftscope_probes.diagnosis.controls.sides import gap_of as gap_of_logprobs
from driftscope_probes.engines.sessions.question import Event


def decoded_gap(one: Sampled, other: Sampled) -> Gap | None:
    """Over the tokens before the first that differs; None: none is left."""
    left, right = [], []
    offsets = one.sequences.cu_seqlens, other.sequences.cu_seqlens
    pairs = zip(one.sequences.responses, other.sequences.responses, strict=True)
    for index, (first, second) in enumerate(pairs):
        shared = same_tokens(first, second)
        left.append(one.logprobs[offsets[0][index] :][:shared])
        right.append(other.logprobs[offsets[1][index] :][:shared])
    packed = np.concatenate(left), np.concatenate(right)
    return gap_of_logprobs(*packed) if packed[0].size else None


def same_tokens(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens agree from the start."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def engine_gap(bench: Bench, change: EngineChange, reference: EngineChange = AS_IS_ENGINE) -> Gap:
    """Between the engine with `change` and as `reference`: decoded or read, what is more."""
    sequences = bench.sample(reference).sequences
    read = gap_of_logprobs(bench.rescore(sequences, reference), bench.rescore(sequences, change))
    decoded = decoded_gap(bench.sample(reference), bench.sample(change))
    if decoded is None:
        return read
    return max(read, decoded, key=lambda gap: gap.sigma)


def agrees_bitwise(
    bench: Bench, change: EngineChange, what: str, reference: EngineChange = AS_IS_ENGINE
) -> Measurement:
    """For runs that give equal bits when healthy: floors do not count, only what explains the gap.

    Where the engine does not repeat its own bits, as a GPU's may not, the floor does count.
    """
    gap = engine_gap(bench, change, reference)
    again = decoded_gap(bench.sample(), bench.sample(replace(AS_IS_ENGINE, again=1)))
    if again is not None and again.equal < 1.0:
        return bench.agree(gap, what)
    return bench.agree_without_floor(gap, what)


def agrees_after(bench: Bench, event: Event, what: str) -> Measurement:
    """One launch before and after the event: two launches might differ for another reason."""
    launch = EngineChange(launch=OTHER_LAUNCH)
    return agrees_bitwise(bench, replace(launch, before=(event,)), what, launch)
