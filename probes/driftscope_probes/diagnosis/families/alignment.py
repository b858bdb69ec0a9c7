"""Alignment: both values are right, but not of the same token.

In: an Examination. Out: findings on shifts, swapped rows and last labels.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.body import typical
from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.plots import noise_by_end, noise_by_sequence, trainer_on_rollout

SURE = 0.97
#: Tokens that have nothing but the prompt as their context, nearly.
FIRST_TOKENS = 4
#: Noise that another prompt leaves on later tokens, in nats: a model that reads its prompt is off
#: by one and more, where a cache of older weights is soon outweighed.
OTHER_QUESTION = (0.8, 1.2)


def off_by_one(seen: Examination) -> Finding | None:
    shift = seen.relation.shift
    if shift is None:
        return None
    unlike = seen.relation.unlike_sequences
    share = float((shift.sequences & unlike).sum()) / max(1, int(unlike.sum()))
    return Finding(
        SURE * ramp(shift.correlation, 0.7, 0.9) * ramp(share, 0.1, 0.6),
        (
            Evidence(
                f"correlation of trainer[i] with engine[i{shift.lag:+d}]",
                round(shift.correlation, 4),
                "about 0 for neighbouring tokens",
            ),
            Evidence("correlation in place", round(shift.in_place, 4), "0.99 and more"),
            Evidence("sequences shifted", int(shift.sequences.sum()), "0"),
        ),
    )


def mispaired(seen: Examination) -> Finding | None:
    swapped = seen.relation.swapped
    if swapped.shape[0] == 0:
        return _other_prompt(seen)
    unlike = int(seen.relation.unlike_sequences.sum())
    first = swapped[0]
    return Finding(
        SURE * ramp(swapped.shape[0] / max(1, unlike), 0.1, 0.5),
        (
            Evidence(
                "rows of the trainer that fit another row of the engine", int(swapped.shape[0]), "0"
            ),
            Evidence(
                "first", f"trainer's sequence {first[0]} is the engine's {first[1]}", "its own"
            ),
            Evidence("sequences far apart in all", unlike, "0"),
        ),
    )


def _other_prompt(seen: Examination) -> Finding | None:
    """Responses under another prompt: gross from the first token on, in some sequences."""
    split, body = seen.places.two_groups, seen.places.body
    if split is None:
        return None
    first = split.dirty & (body.index < FIRST_TOKENS)
    later = split.dirty & (body.index >= FIRST_TOKENS)
    if first.sum() < 4 or later.sum() < 4:
        return None
    at_first, stays = typical(body.residual[first]), typical(body.residual[later])
    ordered = max(seen.accounts(seen.places.block), seen.accounts(seen.places.periodic))
    confidence = (
        0.55
        * ramp(split.contrast, 1.2, 2.2)
        * seen.clean(split)
        * seen.two_kinds
        * seen.unlabelled
        * ramp(at_first, 0.2, 0.5)
        # Another question stays another one; an older cache is soon outweighed by new tokens.
        * ramp(stays, *OTHER_QUESTION)
        * ramp(ordered, 0.9, 0.6)
    )
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence(
                "sequences far off from their first token on",
                int(seen.places.dirty_sequences.sum()),
                "0",
            ),
            Evidence("noise of their first four tokens, nats", round(at_first, 2), "the floor"),
            Evidence("noise of their later tokens, nats", round(stays, 2), "the floor"),
        ),
    )


def last_label(seen: Examination) -> Finding | None:
    ends = seen.places.ends
    if ends is None or ends.at != 1:
        return None
    body = seen.places.body
    last = body.from_end == 1
    return Finding(
        0.95 * ramp(ends.contrast, 1.0, 2.0) * seen.clean(ends) * seen.leads(ends),
        (
            Evidence(
                "mean |Δ| of last tokens, nats",
                round(float(np.abs(body.delta[last]).mean()), 3),
                "as elsewhere",
            ),
            Evidence(
                "mean |Δ| of all others, nats",
                round(float(np.abs(body.delta[~last]).mean()), 4),
                "the floor",
            ),
        ),
    )


CAUSES = (
    Cause(
        name="off_by_one",
        title="one side is shifted by a token",
        level="alignment",
        mechanism="Logits at place i score the token at i + 1; one side forgot the shift or made "
        "it twice, or packed arrays were cut one token off.",
        signature="trainer[i] does not correlate with engine[i], and does with a neighbour.",
        remedy="Shift labels once: log_softmax(logits[:, :-1]) gathered at input_ids[:, 1:]; check "
        "both ends of every sequence.",
        next_control="Move one side by the lag named and analyse again: the difference falls to "
        "the floor.",
        detect=off_by_one,
        plot=trainer_on_rollout,
    ),
    Cause(
        name="prompt_response_mispaired",
        title="rows of the two sides belong to different sequences",
        level="alignment",
        mechanism="The batch was sorted, shuffled or balanced on one side only.",
        signature="A row of the trainer fits another row of the engine, value by value; or every "
        "response is a surprise from its first token on.",
        remedy="Carry an id per response through sorting and balancing, and join by it.",
        next_control="Join by response id and analyse again.",
        detect=mispaired,
        plot=noise_by_sequence,
    ),
    Cause(
        name="last_token_label",
        title="the last token of each response is scored against another label",
        level="alignment",
        mechanism="A roll over the flattened batch takes the last label from the next row, or the "
        "end-of-sequence token was replaced.",
        signature="Only the last token of every response differs, by nats; all others are at the "
        "floor.",
        remedy="Roll labels inside each sequence, and mask or score the last token with its own "
        "label.",
        next_control="Mask the last token of each response and analyse again.",
        detect=last_label,
        plot=noise_by_end,
    ),
)
