"""Agreement of routes against Python sets, token by token."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftscope_probes.diagnosis import routing_differences
from driftscope_probes.diagnosis.routing import NO_ROUTES, TAILS, routing_agreement
from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch.number import NO_TOKENS, Undefined
from driftscope_probes.tokens import Tokens

Routes = NDArray[np.integer[Any]]


def made(seed: int, lengths: tuple[int, ...] = (7, 0, 1, 30)) -> Tokens:
    """Log-probabilities with masked and non-finite tokens among them."""
    random = np.random.default_rng(seed)
    size = sum(lengths)
    rollout = -random.exponential(1.0, size)
    trainer = rollout + random.normal(0, 0.5, size)
    trainer[random.random(size) < 0.1] = np.nan
    limits = np.cumsum([0, *lengths])
    return Tokens(rollout, trainer, limits, random.random(size) < 0.8)


def chosen(random: np.random.Generator, shape: tuple[int, int, int], experts: int) -> Routes:
    """k different experts of each choice, in any order."""
    scores = random.random((*shape[:2], experts))
    return scores.argsort(axis=-1)[..., : shape[2]].astype(np.int16)


def share(hits: list[bool]) -> float | Undefined:
    return sum(hits) / len(hits) if hits else NO_ROUTES


class BySets:
    """The same numbers from Python sets, one token and layer after the other."""

    def __init__(self, tokens: Tokens, rollout: Routes, trainer: Routes) -> None:
        layers = range(rollout.shape[1])
        self.flips: dict[int, list[bool]] = {}
        self.overlap: dict[int, list[float]] = {}
        self.reordered: dict[int, list[bool]] = {}
        self.without = 0
        for token in np.flatnonzero(tokens.takes_part).tolist():
            a, b = rollout[token].tolist(), trainer[token].tolist()
            if any(expert < 0 for choice in [*a, *b] for expert in choice):
                self.without += 1
                continue
            sets = [(set(a[layer]), set(b[layer])) for layer in layers]
            self.flips[token] = [x != y for x, y in sets]
            self.overlap[token] = [len(x & y) / max(len(x), len(y)) for x, y in sets]
            self.reordered[token] = [
                x == y and a[layer] != b[layer] for layer, (x, y) in enumerate(sets)
            ]
        self.diff = tokens.trainer.astype(np.float64) - tokens.rollout

    def group(self, flipped: bool) -> list[float]:
        """Δ of the finite tokens that flip somewhere, or do not."""
        found = [float(self.diff[t]) for t, flips in self.flips.items() if any(flips) == flipped]
        return [diff for diff in found if math.isfinite(diff)]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    layers=st.integers(1, 4),
    k=st.integers(1, 4),
    experts=st.integers(1, 6),
    missing=st.sampled_from([0.0, 0.02]),
    block=st.sampled_from([1, 16, 2**20]),
)
def test_every_number_is_that_of_python_sets(
    seed: int, layers: int, k: int, experts: int, missing: float, block: int
) -> None:
    random, tokens = np.random.default_rng(seed), made(seed)
    shape = (tokens.rollout.size, layers, k)
    # With repetition, which a router never does, and half the choices equal.
    rollout = random.integers(0, experts, shape).astype(np.int16)
    trainer = np.where(random.random(shape) < 0.6, rollout, random.integers(0, experts, shape))
    for side in (rollout, trainer):
        side[random.random(shape) < missing] = -1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing_differences, "BLOCK_IDS", block)
        patch.setattr(routing_differences, "routing_layers", lambda one: np.ones(layers, np.bool_))
        found = routing_agreement(tokens, rollout, trainer)
    expected = BySets(tokens, rollout, trainer)
    assert (found.tokens, found.tokens_without_route) == (len(expected.flips), expected.without)
    flips = list(expected.flips.values())
    assert found.choices_flipped == share([flip for of_token in flips for flip in of_token])
    assert found.tokens_flipped == share([any(of_token) for of_token in flips])
    for layer, one in enumerate(found.layers):
        assert one.layer == layer
        assert one.flipped == share([of_token[layer] for of_token in flips])
        assert one.reordered == share([each[layer] for each in expected.reordered.values()])
        if flips:
            overlaps = [each[layer] for each in expected.overlap.values()]
            assert one.overlap == pytest.approx(np.mean(overlaps), abs=1e-12)
    if flips:
        per_token = [sum(of_token) for of_token in flips]
        assert found.flips_per_token == pytest.approx(np.mean(per_token), abs=1e-12)
        everything = [value for each in expected.overlap.values() for value in each]
        assert found.overlap == pytest.approx(np.mean(everything), abs=1e-12)
    for group, flipped in ((found.agreeing, False), (found.flipped, True)):
        diffs = expected.group(flipped)
        assert group.tokens == len(diffs)
        if not diffs:
            assert group.abs_diff_mean == NO_TOKENS and group.tails == (NO_TOKENS,) * len(TAILS)
            continue
        assert group.abs_diff_mean == pytest.approx(np.mean(np.abs(diffs)), rel=1e-12)
        assert group.kl_k3 == pytest.approx(
            np.mean([math.exp(diff) - 1 - diff for diff in diffs]), rel=1e-9
        )
        for bound, tail in zip(TAILS, group.tails, strict=True):
            beyond = [max(math.exp(diff), math.exp(-diff)) > bound for diff in diffs]
            assert tail == pytest.approx(np.mean(beyond), abs=1e-12)


def test_the_grid_has_every_choice_in_the_bin_of_its_place() -> None:
    tokens = made(3, (200, 5, 130))
    random = np.random.default_rng(3)
    rollout = chosen(random, (335, 3, 2), 8)
    trainer = chosen(random, (335, 3, 2), 8)
    found = routing_agreement(tokens, rollout, trainer)
    expected = BySets(tokens, rollout, trainer)
    assert found.grid.width == 8 and len(found.grid.tokens) == 25
    places = [*range(200), *range(5), *range(130)]
    for at in range(25):
        inside = [t for t in expected.flips if places[t] // 8 == at]
        assert found.grid.tokens[at] == len(inside)
        for layer in range(3):
            of_layer = [expected.flips[token][layer] for token in inside]
            assert found.grid.flipped[layer][at] == (share(of_layer) if inside else None)


@pytest.mark.parametrize(
    ("longest", "width"), [(0, 1), (1, 1), (32, 1), (33, 2), (64, 2), (65, 4), (2**20, 2**15)]
)
def test_bins_are_at_most_32_and_powers_of_two(longest: int, width: int) -> None:
    assert routing_differences.bin_width(longest) == width
    assert -(-longest // width) <= 32


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint64])
def test_any_integer_dtype(dtype: type[np.integer[Any]]) -> None:
    tokens, random = made(1), np.random.default_rng(1)
    rollout, trainer = (chosen(random, (38, 2, 2), 200) for _ in range(2))
    expected = routing_agreement(tokens, rollout, trainer)
    assert routing_agreement(tokens, rollout.astype(dtype), trainer.astype(dtype)) == expected
    assert routing_agreement(tokens, rollout.astype(dtype), trainer) == expected


def test_flips_that_move_the_log_probability() -> None:
    """Built as the public case of 16 sequences with 8 layers of 2: one choice in ten flips, and
    Δ of a token with a flip is ten times that of others."""
    random, size = np.random.default_rng(2), 4000
    rollout = chosen(random, (size, 8, 2), 64)
    flip = random.random((size, 8)) < 0.10
    other = 64 + rollout[..., 0]  # of nobody else
    trainer = rollout.copy()
    trainer[..., 0] = np.where(flip, other, rollout[..., 0])
    logprobs = -random.exponential(1.0, size)
    moved = np.where(flip.any(axis=1), 0.25, 0.025)
    tokens = Tokens(logprobs, logprobs - moved, np.arange(0, size + 1, 250))
    found = routing_agreement(tokens, rollout, trainer)
    assert found.choices_flipped == flip.mean()
    assert found.tokens_flipped == flip.any(axis=1).mean() == pytest.approx(0.57, abs=0.02)
    assert found.overlap == pytest.approx(1 - flip.mean() / 2, abs=1e-12)
    assert found.flipped.abs_diff_mean == pytest.approx(0.25)
    assert found.agreeing.abs_diff_mean == pytest.approx(0.025)
    assert (found.flipped.tails, found.agreeing.tails) == ((1.0, 0.0, 0.0), (0.0, 0.0, 0.0))


def test_another_order_is_no_flip() -> None:
    rollout = chosen(np.random.default_rng(4), (38, 4, 3), 16)
    found = routing_agreement(made(4), rollout, rollout[..., ::-1])
    assert (found.choices_flipped, found.choices_reordered, found.overlap) == (0.0, 1.0, 1.0)


def test_a_last_token_without_a_route_is_left_out_and_counted() -> None:
    tokens = made(5)
    rollout = chosen(np.random.default_rng(5), (38, 4, 2), 16)
    trainer = rollout.copy()
    rollout[tokens.cu_seqlens[1:] - 1] = -1  # of the empty sequence: again that of the one before
    found = routing_agreement(tokens, rollout, trainer)
    assert found.tokens_without_route == tokens.takes_part[[6, 7, 37]].sum()
    assert found.tokens + found.tokens_without_route == tokens.takes_part.sum()
    assert found.choices_flipped == 0.0


@pytest.mark.parametrize("fill", [-1, 0])
def test_dense_layers_are_no_layers_that_agree(fill: int) -> None:
    rollout = chosen(np.random.default_rng(6), (38, 4, 2), 16)
    rollout[:, 0] = fill
    trainer = rollout.copy()
    trainer[:, 2, 0] = 16
    found = routing_agreement(made(6), rollout, trainer)
    assert [one.layer for one in found.layers] == [1, 2, 3]
    assert found.choices_flipped == pytest.approx(1 / 3)
    assert found.tokens_without_route == 0


def test_without_any_route_numbers_say_why() -> None:
    routes = np.full((38, 2, 2), -1, np.int16)
    found = routing_agreement(made(7), routes, routes)
    assert found.choices_flipped == NO_ROUTES and found.tokens == 0
    assert found.to_dict()["choices_flipped"] is None


@pytest.mark.parametrize(
    "wrong", [np.zeros((38, 4)), np.zeros((37, 2, 2), int), np.zeros((38, 2, 2)), [[1], [2, 3]]]
)
def test_routes_of_another_shape_are_refused(wrong: Any) -> None:
    right = np.zeros((38, 2, 2), np.uint8)
    with pytest.raises(TraceError):
        routing_agreement(made(8), wrong, right)
    with pytest.raises(TraceError):
        routing_agreement(made(8), right, wrong)


def test_other_layers_on_the_other_side_are_refused() -> None:
    with pytest.raises(TraceError, match="2 layers of 2 experts, trainer_routed_experts 3 layers"):
        routing_agreement(made(9), np.zeros((38, 2, 2), int), np.zeros((38, 3, 2), int))
