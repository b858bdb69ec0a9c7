"""The split of likelihood: found where it was put, and nowhere in a healthy pair."""

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.diagnosis.controls.engine.onset import TILE, cut, find_onset, positions
from driftscope_probes.diagnosis.controls.sides import Sampled, Sequences

FLOOR = 0.07


def pair(seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Positions, |Δ| and 1 − p of four texts of 160 tokens: rounding alone."""
    rng = np.random.default_rng(seed)
    starts = [start for _ in range(4) for start in range(TILE, 160, TILE)]
    where = np.concatenate([start + np.arange(TILE + 1) for start in starts])
    space = 1.0 - np.exp(-rng.gamma(2.0, 1.2, where.size))
    return where, np.abs(rng.normal(0.0, FLOOR, where.size)) * space, space


@pytest.mark.parametrize("seed", range(30))
def test_a_healthy_pair_has_no_onset(seed: int) -> None:
    assert find_onset(*pair(seed), FLOOR) is None


@pytest.mark.parametrize("position", [64, 97, 129])
def test_an_onset_is_found_exactly(position: int) -> None:
    where, moved, space = pair(position)
    moved = moved + 0.5 * space * (where >= position)
    found = find_onset(where, moved, space, FLOOR)
    assert found is not None and found.position == position
    assert found.before < 2 * FLOOR < 0.4 < found.behind


def test_a_difference_from_the_first_token_on_is_no_onset() -> None:
    where, moved, space = pair(1)
    assert find_onset(where, moved + 0.5 * space, space, FLOOR) is None


def test_every_position_is_decoded_behind_some_cut() -> None:
    texts = (tuple(range(100)),)
    prompts = cut(texts)
    assert [len(prompt) for prompt in prompts] == [16, 32, 48, 64, 80]
    responses = tuple((0,) * (TILE + 1) for _ in prompts)
    sampled = Sampled(Sequences(prompts, responses), np.zeros(85, np.float32))
    decoded = {at for at in positions(sampled).tolist() if at % TILE or at > 80}
    read = {len(prompt) for prompt in prompts}
    assert decoded | read >= set(range(16, 97))
    assert 96 in positions(sampled)[-1:]
