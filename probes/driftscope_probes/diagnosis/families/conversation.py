"""Conversation: the trainer's context is not the one in which the engine answered.

In: an Examination. Out: findings on masks, turns and templates.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.body import typical
from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination, ramp
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.families.function import share
from driftscope_probes.diagnosis.plots import noise_by_index, noise_by_turn

#: |Δ| beyond which a token was hardly sampled from what the engine reported, in nats.
FOREIGN = 1.0
#: A span of foreign tokens is as long as a tool's answer.
SHORTEST_SPAN = 4


def mask_contamination(seen: Examination) -> Finding | None:
    """Runs of tokens that nobody sampled, with clean text before and after."""
    body, extras = seen.places.body, seen.signals.extras
    if body.tokens < 32:
        return None
    best, evidence = 0.0, []
    if extras.turn_ids is not None:
        turn = extras.turn_ids[body.token]
        split = seen.places.by_turn
        if split is not None:
            dirty_turns = np.unique(turn[split.dirty])
            clean_turns = np.unique(turn[~split.dirty])
            later_clean = clean_turns.size and clean_turns.max() > dirty_turns.min()
            best = (
                0.9
                * ramp(split.contrast, 1.0, 2.0)
                * seen.clean(split)
                * (1.0 if later_clean else 0.25)
                * seen.leads(split)
            )
            evidence.append(
                Evidence(
                    "turns that differ",
                    ", ".join(map(str, dirty_turns[:8])),
                    f"none; clean: {', '.join(map(str, clean_turns[:8]))}",
                )
            )
    spans, inside = spans_of(seen)
    if spans:
        covered = inside.mean()
        # The rest of the same sequences has to be clean: whole sequences are another fault.
        with_span = np.isin(body.sequence, body.sequence[inside])
        noise = typical(body.residual[with_span & ~inside]) / seen.floor.sigma
        part = float(inside[with_span].mean())
        explained = float(inside[_foreign(seen)].mean())
        starts_late = float(np.mean([start > 2 for start, _, _ in spans]))
        heals = float(np.mean([healed for _, _, healed in spans]))
        found = (
            0.85
            * ramp(len(spans), 0, 3)
            * ramp(noise, 6.0, 2.5)
            * ramp(heals, 0.2, 0.6)
            * ramp(starts_late, 0.2, 0.6)
            * ramp(covered, 0.9, 0.6)
            * ramp(part, 0.8, 0.6)
            * ramp(explained, 0.4, 0.75)
        )
        best = max(best, found)
        evidence.append(
            Evidence("runs of tokens far apart, clean before and after", len(spans), "0")
        )
        evidence.append(Evidence("tokens in such runs", int(inside.sum()), "0"))
        evidence.append(
            Evidence(
                "mean |Δ| in them, nats",
                round(float(np.abs(body.delta[inside]).mean()), 2),
                "as elsewhere",
            )
        )
    if best < 0.05:
        return None
    return Finding(best, tuple(evidence))


def _foreign(seen: Examination) -> np.ndarray:
    """[body] tokens that were hardly drawn from what the engine reported."""
    body = seen.places.body
    far: np.ndarray = (np.abs(body.delta) > FOREIGN) & (
        np.abs(body.residual) > 12 * seen.floor.sigma
    )
    return far


def spans_of(seen: Examination) -> tuple[list[tuple[int, int, bool]], np.ndarray]:
    """(start index, length, whether clean tokens follow) of runs of foreign tokens; [body] inside.

    A run may hold a few close tokens: those that are likely under both sides.
    """
    body = seen.places.body
    foreign = _foreign(seen)
    inside = np.zeros(body.tokens, np.bool_)
    if not foreign.any():
        return [], inside
    # The fraction of foreign tokens over a window of seven says whether a token lies in a span.
    window = np.convolve(foreign.astype(np.float64), np.ones(7) / 7, mode="same") > 0.4
    edges = np.diff(np.concatenate([[0], (window).astype(np.int8), [0]]))
    spans = []
    for start, stop in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        hits = np.flatnonzero(foreign[start:stop])
        if not hits.size:
            continue
        first, last = start + int(hits[0]), start + int(hits[-1])
        same = body.sequence[first : last + 1] == body.sequence[first]
        last = first + int(np.flatnonzero(same)[-1])
        if last - first + 1 < SHORTEST_SPAN:
            continue
        after = slice(last + 1, min(last + 9, body.tokens))
        follows = body.sequence[after] == body.sequence[first]
        healed = bool(follows.sum() >= 3 and not foreign[after][follows][2:].mean() > 0.3)
        inside[first : last + 1] = True
        spans.append((int(body.index[first]), last - first + 1, healed))
    return spans, inside


def thinking_stripped(seen: Examination) -> Finding | None:
    turns = seen.signals.extras.turn_ids
    body = seen.places.body
    if turns is None:
        return _later_part(seen)
    split = seen.places.onset_turn
    turn = turns[body.token]
    if split is None or split.at <= turn.min():
        return None
    by_turn = [
        f"{value}: {typical(body.residual[turn == value]):.3g}" for value in np.unique(turn)[:6]
    ]
    # A tool's turn heals; a lost context stays lost in every later turn.
    stays = all(
        typical(body.residual[turn == value]) > 2 * split.clean_sigma
        for value in np.unique(turn[split.dirty])
    )
    whole = seen.places.by_turn
    accounts = 1.0 if whole is None else min(1.0, split.gain / whole.gain)
    confidence = (
        0.9
        * ramp(split.contrast, 0.6, 1.4)
        * seen.clean(split)
        * (1.0 if stays else 0.3)
        * ramp(accounts, 0.6, 0.85)
        * seen.leads(split)
    )
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence("first turn that differs", int(split.at), "none"),
            Evidence("noise by turn, nats", "; ".join(by_turn), "equal"),
        ),
    )


def _later_part(seen: Examination) -> Finding | None:
    """Without turns: nearly every response is clean up to a token of its own, and stays bad."""
    own = seen.places.own_onsets
    if own is None:
        return None
    split, cuts = own
    body = seen.places.body
    part = cuts.size / max(1, np.unique(body.sequence).size)
    near = cuts[:, None] + np.arange(-4, 4)
    near = near[(near.min(1) >= 0) & (near.max(1) < body.tokens)]
    jump = float(np.mean(body.size[near[:, 4:]]) - np.mean(body.size[near[:, :4]]))
    confidence = (
        0.6
        * ramp(jump / split.contrast, 0.5, 0.75)
        * seen.flat_after(split, body.index)
        * ramp(split.contrast, 0.8, 1.6)
        * seen.clean(split)
        * ramp(part, 0.35, 0.7)
        * seen.same_token
    )
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence("responses clean up to a token of their own", int(cuts.size), "0"),
            Evidence("noise after it over before", round(float(np.exp(split.contrast)), 1), "1"),
        ),
    )


def chat_template(seen: Examination) -> Finding | None:
    """All sequences, from the first token on, less as the response itself becomes the context."""
    signals, body = seen.signals, seen.places.body
    if body.tokens < 32:
        return None
    early = body.index < 4
    late = body.index >= np.quantile(body.index, 0.6)
    first = typical(body.residual[early]) / seen.floor.sigma
    falling = typical(body.residual[early]) / max(typical(body.residual[late]), 1e-12)
    counts = np.bincount(body.sequence[early], minlength=signals.tokens.sequences)
    sizes = np.bincount(body.sequence[early], body.size[early], signals.tokens.sequences)
    present = counts > 0
    clean = sizes[present] / counts[present] < np.log(3 * seen.floor.sigma)
    everywhere = 1.0 - float(clean.mean())
    confidence = (
        0.8
        * ramp(first, 3.0, 8.0)
        * ramp(falling, 1.8, 3.5)
        * ramp(-seen.growth[0], 0.3, 0.7)
        * ramp(everywhere, 0.6, 0.85)
    )
    confidence = max(confidence, share(seen, "chat_template_mismatch"))
    if confidence < 0.05:
        return None
    return Finding(
        confidence,
        (
            Evidence("noise on the first four tokens over the floor", round(first, 1), "1"),
            Evidence(
                "noise on the first four over that of the late tokens", round(falling, 2), "about 1"
            ),
            Evidence("sequences that differ from their first tokens on", round(everywhere, 2), "0"),
        ),
    )


CAUSES = (
    Cause(
        name="mask_contamination",
        title="tokens that nobody sampled take part",
        level="context",
        mechanism="Tool output, observations or user turns lie inside the response mask.",
        signature="Runs of tokens far apart with clean text before and after; whole turns.",
        remedy="Build the mask from what the engine returned as sampled tokens, not from the "
        "attention mask.",
        next_control="Push the mask of sampled tokens (or turn_ids) and analyse again: the runs "
        "disappear.",
        detect=mask_contamination,
        plot=noise_by_index,
    ),
    Cause(
        name="thinking_stripped",
        title="later turns are scored in another context: earlier thinking was removed",
        level="context",
        mechanism="The chat template drops the reasoning of earlier turns (or tool calls are "
        "written anew) when the whole conversation is rendered for the trainer.",
        signature="The first turn is clean; from a later turn on everything differs.",
        remedy="Train on the token ids of the rollout, turn by turn, or use a template that keeps "
        "earlier thinking.",
        next_control="Compare the trainer's input ids with the engine's prompt ids of the second "
        "turn.",
        detect=thinking_stripped,
        plot=noise_by_turn,
    ),
    Cause(
        name="chat_template_mismatch",
        title="the prompts differ: chat template, system prompt or first token",
        level="context",
        mechanism="Engine and trainer render the same messages with different templates, or one "
        "side adds a beginning-of-sequence token.",
        signature="Every sequence differs from its first token on, by a lot, and less once the "
        "response itself is the context.",
        remedy="Render the prompt once and hand its token ids to both sides.",
        next_control="Compare the prompt's token ids of one sequence on both sides.",
        detect=chat_template,
        plot=noise_by_index,
    ),
)
