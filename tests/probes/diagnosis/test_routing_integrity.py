"""Every sign of corrupt routes against a planted fault, and against data without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftscope_probes.diagnosis.routing_integrity import (
    RoutingIntegrity,
    routing_integrity,
    routing_of,
)
from driftscope_probes.diagnosis.routing_sign import Sign, share_tail_bound, tail_bound
from driftscope_probes.errors import TraceError
from driftscope_probes.tokens import Extras, Tokens

Routes = NDArray[np.int16]
SEQUENCES, LENGTH = 12, 320
SIZE = SEQUENCES * LENGTH
LAYERS, K, EXPERTS = 8, 4, 32


def tokens_of(extras: Extras | None = None, length: int = LENGTH) -> Tokens:
    logprobs = -np.random.default_rng(0).exponential(1.0, SIZE)
    return Tokens(
        logprobs, logprobs + 0.01, np.arange(0, SIZE + 1, length), None, extras or Extras()
    )


def pair(seed: int = 0, noise: float = 0.02) -> tuple[Routes, Routes]:
    """Top-k of router logits, and of the same logits after rounding: near ties flip."""
    random = np.random.default_rng(seed)
    logits = random.standard_normal((SIZE, LAYERS, EXPERTS))
    rounded = logits + noise * random.standard_normal(logits.shape)
    return top(logits), top(rounded)


def top(logits: NDArray[np.float64]) -> Routes:
    return np.argsort(-logits, axis=-1)[..., :K].astype(np.int16)


def sign(found: RoutingIntegrity, name: str, side: str) -> Sign:
    return next(one for one in found.signs if (one.name, one.side) == (name, side))


def names(found: RoutingIntegrity) -> set[tuple[str, str]]:
    return {(one.name, one.side) for one in found.significant}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    noise=st.sampled_from([0.0, 0.005, 0.05, 0.2]),
    length=st.sampled_from([1, 20, LENGTH, SIZE]),
    layers=st.integers(1, LAYERS),
)
def test_near_ties_are_no_sign(seed: int, noise: float, length: int, layers: int) -> None:
    rollout, trainer = pair(seed, noise)
    found = routing_integrity(tokens_of(length=length), rollout[:, :layers], trainer[:, :layers])
    assert found.significant == ()
    assert len(found.signs) == 8


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), layers=st.integers(1, 3), k=st.integers(1, 2))
def test_few_experts_repeat_by_chance(seed: int, layers: int, k: int) -> None:
    """Two experts: rows are equal, shifted rows fit and layers agree in a good part of tokens."""
    random = np.random.default_rng(seed)
    logits = random.standard_normal((SIZE, layers, 3))
    rounded = logits + 0.05 * random.standard_normal(logits.shape)
    rollout, trainer = (np.argsort(-one, axis=-1)[..., :k] for one in (logits, rounded))
    assert routing_integrity(tokens_of(), rollout, trainer).significant == ()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 400),
    layers=st.integers(1, 3),
    most=st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_a_router_with_a_favourite_is_no_sign(
    seed: int, size: int, layers: int, most: float
) -> None:
    """One expert takes nearly every token: rows repeat for long, and look like padding."""
    random = np.random.default_rng(seed)
    routes = (random.random((size, layers, 1)) > most) * random.integers(0, 4, (size, layers, 1))
    logprobs = -np.ones(size)
    tokens = Tokens(logprobs, logprobs, np.array([0, size // 3, size]))
    assert routing_integrity(tokens, routes, routes).significant == ()
    assert routing_integrity(tokens, routes).significant == ()


def test_flips_that_rise_with_the_layer_and_come_in_bursts_are_no_sign() -> None:
    random = np.random.default_rng(5)
    logits = random.standard_normal((SIZE, LAYERS, EXPERTS))
    depth = np.linspace(0.005, 0.06, LAYERS)[None, :, None]
    burst = np.where(random.random((SIZE, 1, 1)) < 0.2, 3.0, 1.0)
    trainer = top(logits + depth * burst * random.standard_normal(logits.shape))
    assert routing_integrity(tokens_of(), top(logits), trainer).significant == ()


@pytest.mark.parametrize("side", ["rollout", "trainer"])
def test_a_stale_row_that_is_repeated(side: str) -> None:
    rollout, trainer = pair()
    corrupt = rollout if side == "rollout" else trainer
    first = 3 * LENGTH + 40
    corrupt[first : first + 67] = corrupt[first]
    found = routing_integrity(tokens_of(), rollout, trainer)
    stale = sign(found, "repeated_rows", side)
    assert stale.significant and stale.count == 67
    assert (stale.sequence, stale.place) == (3, 40)
    assert stale.expected < 3
    assert "67 successive tokens hold one row of experts" in stale.detail
    assert names(found) == {("repeated_rows", side), ("unrelated_rows", "both")}


def test_a_loop_of_the_text_is_no_stale_row() -> None:
    rollout, _ = pair()
    rollout[100:160] = rollout[100]
    ids = np.arange(SIZE)
    changing = routing_integrity(tokens_of(Extras(token_ids=ids)), rollout)
    assert names(changing) == {("repeated_rows", "rollout")}
    assert sign(changing, "repeated_rows", "rollout").alternative is None
    ids[99:160] = 7
    looping = routing_integrity(tokens_of(Extras(token_ids=ids)), rollout)
    assert looping.significant == ()
    unknown = sign(routing_integrity(tokens_of(), rollout), "repeated_rows", "rollout")
    assert unknown.significant and "token_ids would tell" in str(unknown.alternative)


def test_without_ids_a_loop_is_what_both_sides_repeat() -> None:
    rollout, trainer = pair()
    for side in (rollout, trainer):
        side[100:160] = side[100]
    assert routing_integrity(tokens_of(), rollout, trainer).significant == ()
    # A replay is no second word: the same rows on both sides may be stale on both.
    replayed = sign(routing_integrity(tokens_of(), rollout, rollout), "repeated_rows", "trainer")
    assert replayed.significant and replayed.alternative is not None
    rollout[200:260] = rollout[200]
    stale = sign(routing_integrity(tokens_of(), rollout, trainer), "repeated_rows", "rollout")
    assert stale.significant and (stale.place, stale.alternative) == (200, None)


def test_stale_rows_do_not_hide_each_other() -> None:
    rollout, _ = pair()
    for first in range(0, SIZE, LENGTH):
        rollout[first + 30 : first + 60] = rollout[first + 30]
    found = sign(routing_integrity(tokens_of(), rollout), "repeated_rows", "rollout")
    assert found.significant and found.count == 30
    assert f"{SEQUENCES} such runs hold {30 * SEQUENCES} tokens" in found.detail


@pytest.mark.parametrize("k", [1, K])
def test_rows_of_padding(k: int) -> None:
    rollout, trainer = (side[..., :k].copy() for side in pair())
    rollout[2 * LENGTH + 300 : 3 * LENGTH] = 0
    found = routing_integrity(tokens_of(), rollout, trainer)
    padding = sign(found, "padding_rows", "rollout")
    assert padding.significant and (padding.count, padding.of) == (20, SIZE)
    assert (padding.sequence, padding.place) == (2, 300)
    assert not sign(found, "padding_rows", "trainer").significant


def test_masked_padding_is_no_sign() -> None:
    rollout, trainer = pair()
    rollout[300:LENGTH] = 0
    logprobs = -np.ones(SIZE)
    mask = np.ones(SIZE, np.bool_)
    mask[300:LENGTH] = False
    tokens = Tokens(logprobs, logprobs, np.arange(0, SIZE + 1, LENGTH), mask)
    assert routing_integrity(tokens, rollout, trainer).significant == ()


def test_one_choice_with_an_expert_twice_is_not_a_row_of_padding() -> None:
    rollout, trainer = pair()
    rollout[::50, 3, 0] = rollout[::50, 3, 1]
    assert not sign(
        routing_integrity(tokens_of(), rollout, trainer), "padding_rows", "rollout"
    ).significant


@pytest.mark.parametrize(("by", "neighbour"), [(1, "before"), (-1, "after")])
def test_every_row_shifted_by_one(by: int, neighbour: str) -> None:
    rollout, trainer = pair()
    found = routing_integrity(tokens_of(), rollout, np.roll(trainer, -by, axis=0))
    shifted = sign(found, "shifted_rows", "both")
    assert shifted.significant and shifted.count == SEQUENCES
    assert f"for the token {neighbour} it better" in shifted.detail


def test_one_sequence_shifted_by_one() -> None:
    rollout, trainer = pair()
    of = slice(4 * LENGTH, 5 * LENGTH)
    trainer[of] = np.roll(trainer[of], 1, axis=0)
    shifted = sign(routing_integrity(tokens_of(), rollout, trainer), "shifted_rows", "both")
    assert shifted.significant and (shifted.count, shifted.of) == (1, SEQUENCES)
    assert shifted.sequence == 4


def test_many_short_sequences_shifted_together() -> None:
    rollout, trainer = pair()
    shifted = sign(
        routing_integrity(tokens_of(length=4), rollout, np.roll(trainer, 1, axis=0)),
        "shifted_rows",
        "both",
    )
    assert shifted.significant and shifted.count > SIZE // 4 * 0.9


def test_rows_of_other_tokens() -> None:
    rollout, trainer = pair()
    rollout[1000:1030] = rollout[3000:3030]
    unrelated = sign(routing_integrity(tokens_of(), rollout, trainer), "unrelated_rows", "both")
    assert unrelated.significant and unrelated.count == 30
    assert (unrelated.sequence, unrelated.place) == (1000 // LENGTH, 1000 % LENGTH)


@pytest.mark.parametrize("border", [64, 128, 256])
def test_an_onset_at_a_chunk_border(border: int) -> None:
    rollout, trainer = pair(noise=0.001)
    fresh, _ = pair(seed=9)
    for first in range(0, SIZE, LENGTH):
        rollout[first + border : first + LENGTH] = fresh[first + border : first + LENGTH]
    found = routing_integrity(tokens_of(), rollout, trainer)
    onset, at_border = sign(found, "onset", "both"), sign(found, "onset_at_border", "both")
    assert onset.significant and (onset.count, onset.place) == (SEQUENCES, border)
    assert at_border.significant and at_border.count == SEQUENCES
    assert f"a multiple of {border} of the sequence" in at_border.detail
    assert at_border.expected == pytest.approx(SEQUENCES * 3 / border)


def test_an_onset_at_a_border_of_the_context() -> None:
    """Prompts of unequal lengths: only in the context do the onsets stand in one place."""
    rollout, trainer = pair(noise=0.001)
    fresh, _ = pair(seed=9)
    positions = np.arange(SIZE) % LENGTH
    for sequence, first in enumerate(range(0, SIZE, LENGTH)):
        positions[first : first + LENGTH] += 60 + 13 * sequence
        begins = first + 256 - (60 + 13 * sequence)
        rollout[begins : first + LENGTH] = fresh[begins : first + LENGTH]
    found = routing_integrity(tokens_of(Extras(position_ids=positions)), rollout, trainer)
    at_border = sign(found, "onset_at_border", "both")
    assert at_border.significant and "of the context" in at_border.detail
    prompts = Extras(prompt_lengths=60 + 13 * np.arange(SEQUENCES))
    by_prompts = routing_integrity(tokens_of(prompts), rollout, trainer)
    assert sign(by_prompts, "onset_at_border", "both") == at_border
    without = routing_integrity(tokens_of(), rollout, trainer)
    assert sign(without, "onset", "both").significant
    assert not sign(without, "onset_at_border", "both").significant


def test_one_side_has_its_own_signs_only() -> None:
    rollout, trainer = pair()
    for given_, side in (((rollout, None), "rollout"), ((None, trainer), "trainer")):
        found = routing_integrity(tokens_of(), *given_)
        assert [(one.name, one.side) for one in found.signs] == [
            ("repeated_rows", side),
            ("padding_rows", side),
        ]


def test_a_step_says_why_sides_were_not_compared() -> None:
    rollout, trainer = pair()
    tokens = tokens_of()
    assert routing_of(tokens, None, None) is None
    assert routing_of(tokens, np.zeros((SIZE, 0, 2), int), None) is None
    one = routing_of(tokens, rollout, None)
    assert one is not None and one.agreement is None
    assert one.not_compared is not None and "no trainer_routed_experts" in one.not_compared
    unequal = routing_of(tokens, rollout, trainer[:, 1:])
    assert unequal is not None and unequal.agreement is None
    assert unequal.not_compared is not None and "7 layers of 4 experts" in unequal.not_compared
    assert len(unequal.integrity.signs) == 4
    both = routing_of(tokens, rollout, trainer)
    assert both is not None and both.agreement is not None and both.not_compared is None


def test_a_negative_id_is_no_route_in_any_sign() -> None:
    rollout, trainer = pair()
    rollout[tokens_of().cu_seqlens[1:] - 1] = -1
    rollout[500:600] = -1
    found = routing_integrity(tokens_of(), rollout, trainer)
    assert found.significant == ()
    assert sign(found, "padding_rows", "rollout").of == SIZE - 100 - SEQUENCES


@pytest.mark.parametrize("size", [0, 1, 2])
def test_almost_no_token(size: int) -> None:
    logprobs = -np.ones(size)
    ids = np.arange(size)
    tokens = Tokens(logprobs, logprobs, np.array([0, size]), None, Extras(token_ids=ids))
    routes = np.tile(np.arange(2), (size, 3, 1))
    assert routing_integrity(tokens, routes, routes).significant == ()


def test_huge_ids_need_no_table_of_experts() -> None:
    rollout, trainer = (side + np.int32(2**31 - 100) for side in pair())
    assert routing_integrity(tokens_of(), rollout, trainer).significant == ()
    shifted = routing_integrity(tokens_of(), rollout, np.roll(trainer, 1, axis=0))
    assert sign(shifted, "shifted_rows", "both").significant


def test_routes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TraceError, match="trainer_routed_experts has shape"):
        routing_integrity(tokens_of(), None, np.zeros((3, 2, 2), int))


def simulated(seed: int, draw: Callable[[np.random.Generator], Any]) -> float:
    return float(np.mean(draw(np.random.default_rng(seed))))


@pytest.mark.parametrize(("count", "of", "rate"), [(8, 100, 0.02), (40, 100, 0.25), (3, 10, 0.05)])
def test_bounds_are_above_what_is_drawn(count: int, of: int, rate: float) -> None:
    drawn = simulated(1, lambda random: random.binomial(of, rate, 200_000) >= count)
    assert drawn <= tail_bound(count, of * rate)
    assert drawn <= share_tail_bound(count / of, rate, of) <= tail_bound(count, of * rate)
    assert tail_bound(count, of) == share_tail_bound(rate, rate, of) == 1.0


def test_the_document_is_json_and_holds_every_sign_with_its_null() -> None:
    rollout, trainer = pair(noise=0.001)
    rollout[40:107] = rollout[40]
    rollout[1000:1020] = 0
    trainer[LENGTH : 2 * LENGTH] = np.roll(trainer[LENGTH : 2 * LENGTH], 1, axis=0)
    rollout[5 * LENGTH + 64 : 6 * LENGTH] = rollout[64:LENGTH]
    document = routing_integrity(tokens_of(), rollout, trainer).to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["corrupt"] is True
    found = {one["name"] for one in document["signs"] if one["significant"]}
    assert found == {"repeated_rows", "padding_rows", "shifted_rows", "unrelated_rows", "onset"}
    assert all(one["null"] and one["detail"].endswith(".") for one in document["signs"])
