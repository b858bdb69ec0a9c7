from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftscope_probes.mismatch import compare
from driftscope_probes.mismatch.fused.layouts import BLOCK, TokenPass
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.tokens import Tokens, checked_tokens

PER_SEQUENCE = ("rows", "sums", "spread")


def long_batch(seed: int, tokens: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    rollout = np.log(rng.beta(3, 1, tokens)).astype(np.float32)
    return rollout, (rollout + rng.normal(0, 0.05, tokens)).astype(np.float32)


def same_bits(first: TokenPass, second: TokenPass) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4 * BLOCK), st.integers(1, 4 * BLOCK))
def test_a_sequence_has_the_same_bits_whatever_stands_before_it(
    seed: int, before: int, length: int
) -> None:
    rollout, trainer = long_batch(seed, before + length)
    together = token_pass(checked_tokens(rollout, trainer, [0, before, before + length]))
    alone = token_pass(checked_tokens(rollout[before:], trainer[before:], [0, length]))
    for name in PER_SEQUENCE:
        assert getattr(together, name)[1:].tobytes() == getattr(alone, name).tobytes()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.9))
def test_masked_tokens_leave_no_trace_in_the_sums(seed: int, share: float) -> None:
    rollout, trainer = long_batch(seed, 3 * BLOCK)
    mask = np.random.default_rng(seed).random(rollout.size) >= share
    mask[0] = True
    masked = token_pass(checked_tokens(rollout, trainer, [0, rollout.size], mask))
    short = token_pass(checked_tokens(rollout[mask], trainer[mask], [0, mask.sum()]))
    assert masked.sums.tobytes() == short.sums.tobytes()
    assert masked.spread.tobytes() == short.spread.tobytes()


def test_layout_alignment_and_write_protection_do_not_matter() -> None:
    rollout, trainer = long_batch(1, 700)
    limits = [0, 300, 700]
    plain = token_pass(checked_tokens(rollout, trainer, limits))
    strided = np.zeros((700, 2), np.float32)
    strided[:, 0] = rollout
    shifted = np.frombuffer(b"x" + rollout.tobytes(), np.uint8)[1:].view(np.float32)
    protected = rollout.copy()
    protected.flags.writeable = False
    for other in (strided[:, 0], shifted, protected):
        assert same_bits(token_pass(checked_tokens(other, trainer, limits)), plain)
    wide = checked_tokens(rollout.astype(np.float64), trainer, limits)
    assert same_bits(token_pass(wide), plain)


@pytest.mark.parametrize("seed", range(10))
def test_one_token_moved_by_one_bit_is_caught(seed: int, batch: Callable[[int], Tokens]) -> None:
    pair = batch(seed)
    trainer = pair.trainer.copy()
    trainer[0] = np.nextafter(trainer[0], np.float32(0))
    moved = checked_tokens(pair.rollout, trainer, pair.cu_seqlens, pair.mask)
    assert not same_bits(token_pass(moved), token_pass(pair))


def test_no_array_of_the_tokens_is_made() -> None:
    rollout, trainer = long_batch(2, 1_000_000)
    limits = np.arange(0, 1_000_001, 5000)
    compare(rollout, trainer, limits, resamples=0)
    tracemalloc.start()
    compare(rollout, trainer, limits, resamples=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rollout.nbytes + trainer.nbytes
    assert peak < np.dtype(np.float64).itemsize * rollout.size


def test_close_and_other_tokens_mixed_sum_up_to_the_two_apart() -> None:
    """The reordering of a block loses no token and takes none twice."""
    rollout, trainer = long_batch(7, 2 * BLOCK)
    far = np.random.default_rng(7).random(rollout.size) < 0.3
    trainer[far] = rollout[far] - 1.0
    kept = [np.ones(rollout.size, bool), far, ~far]
    mixed, of_far, of_close = (
        token_pass(checked_tokens(rollout, trainer, [0, rollout.size], mask)) for mask in kept
    )
    for name in mixed.sums.dtype.names or ():
        if name in ("rollout_prob", "trainer_prob"):
            continue  # counted from the first token, another one in each
        apart = of_far.sums[name][0] + of_close.sums[name][0]
        assert mixed.sums[name][0] == pytest.approx(apart, rel=1e-12), name
    for name in mixed.counts.dtype.names or ():
        assert mixed.counts[name][0] == of_far.counts[name][0] + of_close.counts[name][0], name
