from __future__ import annotations

import statistics
import struct
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.mismatch.counts import (
    ALL_MASKED,
    NONE_DIFFERS,
    Bitwise,
    bitwise,
    differing_tokens,
)
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.tokens import Tokens, checked_tokens


def of_pair(pair: Tokens) -> Bitwise:
    return bitwise(differing_tokens(token_pass(pair)))


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops_over_packed_bytes(seed: int, batch: Callable[[int], Tokens]) -> None:
    pair = batch(seed)
    assert pair.mask is not None
    tokens = differing = sequences = 0
    first = []
    for start, end in zip(pair.cu_seqlens[:-1].tolist(), pair.cu_seqlens[1:].tolist(), strict=True):
        unmasked = [token for token in range(start, end) if pair.mask[token]]
        unequal = [
            token - start
            for token in unmasked
            if struct.pack("f", pair.rollout[token]) != struct.pack("f", pair.trainer[token])
        ]
        tokens, differing = tokens + len(unmasked), differing + len(unequal)
        sequences += bool(unmasked)
        first += unequal[:1]
    found = of_pair(pair)
    assert found.bitwise_equal_fraction == (tokens - differing) / tokens
    assert found.bitwise_equal_sequences == sequences - len(first)
    assert found.bitwise_equal_sequence_fraction == (sequences - len(first)) / sequences
    assert found.first_differing_token == min(first)
    assert found.first_differing_token_median == statistics.median(first)


def test_bits_not_values_are_compared() -> None:
    nan = np.float32(np.nan)
    rollout = np.array([0.0, nan, -1.0, nan], dtype=np.float32)
    trainer = np.array([-0.0, nan, -1.0, -1.0], dtype=np.float32)
    found = of_pair(checked_tokens(rollout, trainer, [0, 4]))
    assert found.bitwise_equal_fraction == 0.5  # the NaN pair is equal, the two zeros are not
    assert found.first_differing_token == 0


def test_unequal_dtypes_meet_in_the_wider_one() -> None:
    rollout = np.array([-0.5, -0.1], dtype=np.float32)
    found = of_pair(checked_tokens(rollout, np.array([-0.5, -0.1]), [0, 2]))
    assert found.bitwise_equal_fraction == 0.5


def test_one_flipped_bit_in_the_last_place_is_caught() -> None:
    rollout = np.linspace(-3, -0.1, 50).astype(np.float32)
    trainer = rollout.copy()
    trainer[37] = np.nextafter(trainer[37], np.float32(0))
    found = of_pair(checked_tokens(rollout, trainer, [0, 30, 30, 50]))
    assert found.bitwise_equal_fraction == 49 / 50
    assert (found.bitwise_equal_sequences, found.first_differing_token) == (1, 7)


def test_undefined_where_nothing_differs_or_everything_is_masked() -> None:
    same = np.array([-1.0, -2.0])
    equal = of_pair(checked_tokens(same, same.copy(), [0, 2]))
    assert equal.bitwise_equal_fraction == 1.0
    assert equal.first_differing_token == equal.first_differing_token_median == NONE_DIFFERS
    masked = of_pair(checked_tokens(same, same - 1, [0, 2], np.zeros(2, dtype=bool)))
    assert masked.bitwise_equal_fraction == masked.bitwise_equal_sequence_fraction == ALL_MASKED


def test_non_contiguous_arrays() -> None:
    wide = np.arange(-8.0, 0.0, dtype=np.float32)
    found = of_pair(checked_tokens(wide[::2], wide[::2].copy(), [0, 4]))
    assert found.bitwise_equal_fraction == 1.0
