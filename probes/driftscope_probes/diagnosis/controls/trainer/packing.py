"""Control document_perturbed: one token of document 1 changes; nothing in document 2 may move."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.cause import Evidence
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.sides import Logprobs, Sequences, TrainerChange, gap_of
from driftscope_probes.diagnosis.floor import prior_floor

PACKED: Final = TrainerChange(packed=True)
#: In float32, where row counts of a mixture's experts change nothing but the last digits.
PACKED_FP32: Final = TrainerChange(packed=True, mode="fp32")


def _run(bench: Bench) -> Measurement:
    sequences = bench.sample().sequences
    if bench.sides.trainer.batching != "packed":
        raise NotExercised(
            "the trainer pads its micro-batches, so that no document lies behind another one.",
            remedy="set the trainer's batching to packed where your training run packs.",
        )
    if len([response for response in sequences.responses if response]) < 2:
        raise NotExercised(
            "fewer than two responses have tokens, so that there is no second document.",
            remedy="give two prompts or more.",
        )
    changed = _perturbed(sequences)
    moe = bench.known.mixture_of_experts
    before, after = (
        bench.score(rows, PACKED_FP32 if moe else PACKED) for rows in (sequences, changed)
    )
    bounds = sequences.cu_seqlens
    behind = slice(int(bounds[_first(sequences) + 1]), None)
    moved = gap_of(before[behind], after[behind])
    # Where a token takes another route, experts get other row counts.
    bound = prior_floor("fp32", "fp32", moe=True).sigma if moe else 0.0
    return Measurement(
        "clean" if moved.sigma <= bound else "dirty",
        "sigma, documents behind one of which one token changed",
        moved.sigma,
        "0: equal bits" if bound == 0.0 else f"up to {bound:.2g}: experts get other row counts",
        (
            Evidence("largest movement behind the changed document, nats", moved.largest, "0"),
            Evidence("documents that moved", _documents(before, after, bounds), "none behind it"),
        ),
    )


def _first(sequences: Sequences) -> int:
    """The first document that has a response: what stands before it is not scored."""
    return next(index for index, response in enumerate(sequences.responses) if response)


def _perturbed(sequences: Sequences) -> Sequences:
    """With another last token in the first document: nearest to what follows, where a recurrent
    state has not yet forgotten it.
    """
    first = _first(sequences)
    response = sequences.responses[first]
    other = next((token for token in _tokens(sequences) if token != response[-1]), None)
    if other is None:
        raise NotExercised(
            "every token is the same, so that none can be replaced by one that occurs.",
            remedy="give other prompts, or sample at temperature 1.",
        )
    responses = list(sequences.responses)
    responses[first] = (*response[:-1], other)
    return Sequences(sequences.prompts, tuple(responses))


def _tokens(sequences: Sequences) -> list[int]:
    """Valid for this model: its own."""
    return sorted({token for row in (*sequences.prompts, *sequences.responses) for token in row})


def _documents(before: Logprobs, after: Logprobs, bounds: NDArray[np.int64]) -> str:
    pairs = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    moved = [
        str(index + 1)
        for index, (start, stop) in enumerate(pairs)
        if not np.array_equal(before[start:stop], after[start:stop], equal_nan=True)
    ]
    return ", ".join(moved) or "none"


DOCUMENT_PERTURBED = Control(
    name="document_perturbed",
    title="Change one token of document 1 in a packed row and watch the documents behind it",
    separates="Documents that see each other (attention across the boundary, or a recurrent state "
    "that is carried over it) from every other cause: no kernel's rounding gets from one document "
    "to the next.",
    null="Equal bits in every document behind it (tiny Llama in bf16 and fp32, MoE in fp32, 16 "
    "pairs); a mixture may move by 2.5e-5, where experts get other row counts.",
    cost_s=0.6,
    positive="dirty",
    points_to={"packed_attention_leak": 0.98, "packed_state_leak": 0.98},
    run=_run,
)
