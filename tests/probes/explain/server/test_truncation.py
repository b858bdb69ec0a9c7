"""Onsets planted in made-up noise, by position and by length, are found with few lengths asked."""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.explain.server.sizes import coincidences
from driftscope_probes.explain.server.truncation import Onset, Profile, locate

FLOOR, FAULT, LONGEST, TEXTS = 0.03, 0.6, 400, 4


def found(*, position: int = 10**9, length: int = 10**9, seed: int = 1) -> Onset:
    """Of a made-up pair that errs from a position on, or in prompts of at least a length."""
    noise = np.random.default_rng(seed).normal(size=(TEXTS, LONGEST))

    def measure(asked: int) -> Profile:
        where = np.tile(np.arange(1, asked), (TEXTS, 1))
        wrong = (where >= position) | (asked >= length)
        moved = np.abs(noise[:, 1:asked]) * np.where(wrong, FAULT, FLOOR)
        room = np.full(moved.size, 1.0)
        return Profile(where.ravel(), moved.ravel(), room)

    return locate(measure, LONGEST, FLOOR)


@settings(max_examples=40, deadline=None)
@given(position=st.integers(40, 360), seed=st.integers(0, 10**6))
def test_a_position_is_found_wherever_it_is(position: int, seed: int) -> None:
    onset = found(position=position, seed=seed)
    assert onset.where == "position" and onset.at is not None
    assert abs(onset.at - position) <= 2
    assert len(onset.steps) == 2


@settings(max_examples=40, deadline=None)
@given(length=st.integers(33, LONGEST), seed=st.integers(0, 10**6))
def test_a_length_is_found_by_halving(length: int, seed: int) -> None:
    """As a rotary that scales itself with the prompt."""
    onset = found(length=length, seed=seed)
    assert (onset.where, onset.at) == ("length", length)
    assert len(onset.steps) <= 2 + ceil(log2(LONGEST))


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_pair_has_none(seed: int) -> None:
    onset = found(seed=seed)
    assert (onset.where, onset.at, len(onset.steps)) == ("none", None, 1)


def test_a_pair_that_errs_from_the_first_token() -> None:
    assert found(position=0).where == "everywhere"


def test_sizes_of_the_configuration_come_before_multiples_of_blocks() -> None:
    configs: dict[str, dict[str, Any]] = {
        "engine": {"sliding_window": 127, "rope_parameters": {}},
        "trainer": {"rope_scaling": {"original_max_position_embeddings": 128}},
    }
    names = [one.what for one in coincidences(128, configs, 129, 512)]
    assert names[:3] == [
        "sliding_window of the engine's config.json",
        "rope_scaling.original_max_position_embeddings of the trainer's config.json",
        "the server's max_model_len",
    ]
    assert names[3].startswith("a multiple of 128")
    assert coincidences(131, configs, None, 512) == []
