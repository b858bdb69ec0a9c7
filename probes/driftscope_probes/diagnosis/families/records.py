"""Records: values that are no log-probabilities of the sampled token, whatever the model.

In: an Examination. Out: findings on NaN, sentinels, placeholders, values above 0, other token ids.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.body import FEW_TOKENS, Floats, Ints, typical
from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.plots import impossible_by_sequence, other_ids_by_sequence
from driftscope_probes.mismatch.impossible import CERTAIN_ABOVE
from driftscope_probes.mismatch.token_places import token_places

#: log of the mass that a nucleus keeps at the least: values of exactly 0 whose partner is above it
#: may be tokens that were alone in their nucleus.
LOWEST_KEPT_MASS = -1.0
#: Rounding of a log-probability near 0; a rounded logit minus an exact log-sum-exp gives hundreds
#: of times that.
ROUNDED_LOGIT_ABOVE = 2e-3
SURE = 0.97
#: More values above 0 than this are no rounding of likely tokens.
MOST_ABOVE = 0.6
#: Nats between two values that do not speak of the same draw.
FAR_APART = 2.0


def sentinel_or_nan(seen: Examination) -> Finding | None:
    impossible = seen.signals.impossible
    sides = (
        ("rollout", "NaN or infinite", impossible.rollout.nonfinite),
        ("trainer", "NaN or infinite", impossible.trainer.nonfinite),
        ("rollout", "below -100 nats", impossible.rollout.sentinel),
        ("trainer", "below -100 nats", impossible.trainer.sentinel),
    )
    found = [item for item in sides if item[2].size]
    most = MOST_ABOVE * seen.signals.unmasked
    for side, rows in (
        ("rollout", impossible.rollout.positive),
        ("trainer", impossible.trainer.positive),
    ):
        if rows.size > most:
            what = "above 0: probabilities, or log-probabilities without their sign"
            found.append((side, what, rows))
    if not found:
        return None
    evidence = [
        Evidence(f"{side} values {what}", int(rows.size), "0 of any length")
        for side, what, rows in found
    ]
    rows = np.unique(np.concatenate([item[2] for item in found]))
    evidence += _where(seen, rows)
    return Finding(SURE, tuple(evidence))


def placeholder(seen: Examination) -> Finding | None:
    impossible = seen.signals.impossible
    zero, repeated = impossible.placeholder, impossible.rollout.repeated
    trainer = seen.signals.tokens.trainer
    confidence = 0.0
    evidence: list[Evidence] = []
    rows = np.zeros(0, np.int64)
    body = seen.signals.body
    # Tokens that somebody else wrote carry many values; some of them may be 0 as well.
    others = int((np.abs(body.delta) > FAR_APART).sum()) if body.tokens else 0
    alone = ramp((zero.size + repeated.size) / max(1, zero.size + repeated.size + others), 0.4, 0.8)
    if zero.size:
        lowest = float(np.median(trainer[zero]))
        deep = float((trainer[zero] < LOWEST_KEPT_MASS).mean())
        if zero.size >= 2 or deep > 0.5:
            confidence = SURE * ramp(deep, 0.05, 0.4) * ramp(zero.size, 0, 3) * alone
        evidence.append(
            Evidence(
                "engine values of exactly 0 where the trainer is far from it",
                int(zero.size),
                "0: a certain token is certain on both sides",
            )
        )
        evidence.append(
            Evidence("the trainer's median there, nats", round(lowest, 3), f"above {CERTAIN_ABOVE}")
        )
        rows = zero
    if repeated.size:
        confidence = max(confidence, SURE * ramp(repeated.size, 2, 6) * alone)
        evidence.append(
            Evidence(
                f"engine values of exactly {impossible.rollout.repeated_value:g}",
                int(repeated.size),
                "no value repeats while the trainer's differ",
            )
        )
        rows = np.union1d(rows, repeated)
    sides = (("engine", body.rollout, body.trainer), ("trainer", body.trainer, body.rollout))
    for side, values, partner in sides:
        # A policy that is certain everywhere says 0 on both sides, up to rounding.
        if one_constant(values) and float(np.abs(partner - values[0]).max()) > -CERTAIN_ABOVE:
            confidence = SURE
            evidence.append(
                Evidence(f"all {side} values", f"exactly {values[0]:g}", "they differ by token")
            )
    if confidence == 0.0:
        return None
    return Finding(
        confidence,
        (*evidence, *(_where(seen, rows) if rows.size else ())),
    )


def one_constant(values: Floats) -> bool:
    return values.size >= FEW_TOKENS and bool(np.ptp(values) == 0)


#: Highest value above 0 over mean |Δ|. The largest of many rounding errors is some of their means.
EXPLAINED_BY_HIGHEST = (0.1, 0.5)


def positive(seen: Examination) -> Finding | None:
    impossible, tokens = seen.signals.impossible, seen.signals.tokens
    found = []
    for side, rows, values in (
        ("rollout", impossible.rollout.positive, tokens.rollout),
        ("trainer", impossible.trainer.positive, tokens.trainer),
    ):
        rows = rows[~np.isin(rows, impossible.rollout.repeated)]
        if rows.size:
            found.append((side, rows, float(values[rows].max())))
    if not found:
        return None
    highest = max(item[2] for item in found)
    evidence = []
    for side, rows, most in found:
        evidence.append(Evidence(f"{side} values above 0", int(rows.size), "0"))
        evidence.append(
            Evidence(
                f"highest {side} value, nats",
                round(most, 4),
                "at most 1e-7, the rounding of float32",
            )
        )
    rows = np.unique(np.concatenate([item[1] for item in found]))
    count = ramp(rows.size, 0, 3)
    if rows.size > MOST_ABOVE * seen.signals.unmasked:
        return None  # no rounding: probabilities, or the sign is lost
    # What rounds a logit so far rounds the others alike: a much larger difference is another fault.
    size = float(np.abs(seen.signals.body.delta).mean()) if seen.signals.body.delta.size else 0.0
    explained = ramp(highest / size, *EXPLAINED_BY_HIGHEST) if size else 1.0
    return Finding(
        SURE * ramp(highest, 1e-4, ROUNDED_LOGIT_ABOVE) * count * explained,
        tuple(evidence),
    )


def other_token_ids(seen: Examination) -> Finding | None:
    """The engine's ids against those that the trainer scored; masked tokens count as context."""
    engine, trained = seen.observed.rollout_token_ids, seen.signals.extras.token_ids
    if engine is not None and trained is not None:
        unequal = np.flatnonzero(engine != trained)
        if not unequal.size:
            return None
        cu_seqlens = seen.signals.tokens.cu_seqlens
        sequence = np.searchsorted(cu_seqlens, unequal, side="right") - 1
        first = int(unequal[0])
        return Finding(
            SURE,
            (
                Evidence("token ids that differ", int(unequal.size), "0"),
                Evidence("sequences with one", int(np.unique(sequence).size), "0"),
                Evidence(
                    "first",
                    f"sequence {sequence[0]}, token {first - int(cu_seqlens[sequence[0]])}: "
                    f"{int(engine[first])} sampled, {int(trained[first])} scored",
                    "the same id",
                ),
            ),
        )
    return _other_text(seen)


#: Sequences that must turn bad at a token of their own before their text is doubted.
FEW_ONSETS = 2


def _other_text(seen: Examination) -> Finding | None:
    """Without both ids: some sequences are clean up to a token of their own and bad from it on."""
    own = seen.places.own_onsets
    if own is None:
        return None
    split, cuts = own
    signals, body = seen.signals, seen.places.body
    common = seen.places.onset
    dirty = np.unique(body.sequence[cuts])
    if dirty.size < FEW_ONSETS:
        return None
    # The token where the texts part is itself a surprise to the trainer.
    around = np.concatenate([cuts, np.minimum(cuts + 1, body.tokens - 1)])
    surprise = float(
        np.median(np.minimum.reduce([body.delta[cuts], body.delta[around[cuts.size :]]]))
    )
    others = (common, seen.places.onset_position, seen.places.ends, seen.places.onset_turn)
    shared = max((found.gain for found in others if found is not None), default=0.0) / split.gain
    paired = seen.relation.shift is None and seen.relation.swapped.shape[0] == 0
    # What heals is a span of foreign tokens; another context stays another one.
    worst = seen.places.dirty_sequences
    begun = float(np.isin(np.flatnonzero(worst), dirty).mean()) if worst.any() else 1.0
    late = split.dirty & (body.from_end <= 4)
    early = np.zeros(body.tokens, np.bool_)
    early[np.minimum(cuts[:, None] + np.arange(4), body.tokens - 1)] = True
    stays = typical(body.residual[late]) / max(typical(body.residual[early]), 1e-12)
    spread = float(np.std(body.index[cuts])) / max(1.0, float(np.mean(body.index[cuts])))
    at_turn = _at_turn_start(seen, cuts)
    partial = 1.0 - dirty.size / max(1, np.unique(body.sequence).size)
    confidence = (
        0.8
        * ramp(split.contrast, 0.8, 1.6)
        * seen.clean(split)
        * ramp(shared, 0.8, 0.5)
        * ramp(spread, 0.1, 0.3)
        * ramp(-surprise, 0.3, 1.5)
        * ramp(stays, 0.02, 0.1)
        * ramp(begun, 0.4, 0.7)
        * (1.0 if paired else 0.1)
        * ramp(dirty.size / max(1, signals.tokens.sequences), 0.0, 0.03)
    )
    if at_turn > 0.8 and partial < 0.3:
        confidence *= 0.4  # whole turns: their context rather than their tokens
    if confidence < 0.05:
        return None
    evidence = [
        Evidence("sequences clean up to a token of their own", int(dirty.size), "0"),
        Evidence("|residual| after it over before", round(float(np.exp(split.contrast)), 1), "1"),
        Evidence("Δ at that token, median, nats", round(surprise, 2), "about 0"),
    ]
    if signals.extras.turn_ids is not None:
        evidence.append(Evidence("of them at the start of a turn", round(at_turn, 2), "by chance"))
    return Finding(confidence, tuple(evidence))


def _at_turn_start(seen: Examination, cuts: Ints) -> float:
    turns = seen.signals.extras.turn_ids
    if turns is None or not cuts.size:
        return 0.0
    of_token = turns[seen.places.body.token]
    near = [bool(np.ptp(of_token[max(0, cut - 2) : cut + 3]) > 0) for cut in cuts]
    return float(np.mean(near))


def _where(seen: Examination, rows: Ints) -> list[Evidence]:
    """The same words as where the values themselves are listed."""
    found = token_places(seen.signals.tokens, np.sort(rows))
    return [Evidence("where", found.words, "nowhere")]


CAUSES = (
    Cause(
        name="sentinel_or_nan_logprob",
        title="values that are no log-probabilities: NaN, infinite or a sentinel",
        level="comparable",
        mechanism="A logit row overflowed, a value was missing, or a server wrote its stand-in for "
        "-inf (-9999 in vLLM's JSON).",
        signature="Values that are not finite or below -100 nats, often from one token on to the "
        "end of a sequence.",
        remedy="Find what made the first one: keep the value as NaN, leave its sequence out of the "
        "loss, and check the engine's logits of that prompt for overflow; never turn it into 0.",
        next_control="Score the named sequences again in the same engine, alone: values that stay "
        "are the model's or its dtype's, values that go were the batch's.",
        detect=sentinel_or_nan,
        plot=impossible_by_sequence,
    ),
    Cause(
        name="placeholder_logprob",
        title="placeholders stand where the engine sampled nothing",
        level="comparable",
        mechanism="The framework appended tokens itself (end of sequence, tool output) and filled "
        "their log-probability with a constant.",
        signature="One exact value, mostly 0.0, on tokens that the trainer finds unlikely; at the "
        "end of sequences or in runs.",
        remedy="Set the mask to 0 on every token that the engine did not sample; take the "
        "log-probability of the end-of-sequence token from the engine.",
        next_control="Analyse the step again with those tokens masked: what is left is the real "
        "difference.",
        detect=placeholder,
        plot=impossible_by_sequence,
    ),
    Cause(
        name="positive_logprob",
        title="log-probabilities above 0: a rounded logit minus an exact log-sum-exp",
        level="comparable",
        mechanism="The token's logit was rounded to a short dtype, the log-sum-exp was not, or the "
        "other way round.",
        signature="Values above 0 by more than float32's rounding, on likely tokens, on one side.",
        remedy="Take logit and log-sum-exp from the same float32 logits: cast before the gather, "
        "not after it.",
        next_control="Score once with logits cast to float32 first: the values above 0 disappear.",
        detect=positive,
        plot=impossible_by_sequence,
    ),
    Cause(
        name="retokenization_drift",
        title="the trainer scored other tokens than the engine sampled",
        level="comparable",
        mechanism="The response went through text and was tokenised again: another split of the "
        "same text, and another context for everything after it.",
        signature="Token ids differ; without them, some sequences are clean up to a token of their "
        "own, often the start of a turn, and wrong from it on.",
        remedy="Hand the engine's token ids to the trainer (return_token_ids); never tokenise the "
        "text of a response again.",
        next_control="Compare the engine's ids with the trainer's around the first token that "
        "differs (rollout_token_ids beside token_ids say where).",
        detect=other_token_ids,
        plot=other_ids_by_sequence,
    ),
)
