from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.trace import Trace
from driftscope_probes.trainer.gradient import PolicyLoss, balanced_advantages

CPU = torch.device("cpu")


@given(sequences=st.integers(1, 99), seed=st.integers(0, 1000))
def test_advantages_are_balanced_and_seeded(sequences: int, seed: int) -> None:
    advantages = balanced_advantages(sequences, seed)
    assert set(advantages) <= {-1.0, 1.0}
    assert advantages.sum() == sequences % 2
    assert np.array_equal(advantages, balanced_advantages(sequences, seed))


def test_another_seed_gives_another_order() -> None:
    assert not np.array_equal(balanced_advantages(30, 0), balanced_advantages(30, 1))


def test_slices_add_up_to_the_formula(make_rollout: Callable[..., Trace]) -> None:
    rollout = make_rollout(lengths=(3, 5, 2))
    logprobs = torch.from_numpy(rollout.logprobs + np.float32(0.125))
    policy = PolicyLoss(rollout, 3, CPU)
    slices = [slice(0, 3), slice(3, 8), slice(8, 10)]
    total = sum(policy.of(logprobs[part], part).item() for part in slices)
    advantages = np.repeat(balanced_advantages(3, 3), [3, 5, 2])
    ratio = np.exp(logprobs.numpy() - rollout.logprobs, dtype=np.float64)
    assert total == pytest.approx(-(advantages * ratio).mean(), rel=1e-12)


def test_masked_tokens_count_neither_above_nor_below(make_rollout: Callable[..., Trace]) -> None:
    whole = make_rollout(lengths=(4, 4))
    mask = np.array([True, True, False, False] * 2)
    rollout = Trace(
        whole.token_ids.copy(), whole.logprobs.copy(), whole.cu_seqlens.copy(), mask, whole.meta
    )
    policy = PolicyLoss(rollout, 0, CPU)
    logprobs = torch.from_numpy(rollout.logprobs.copy())
    logprobs[torch.from_numpy(~mask)] = torch.inf
    logprobs.requires_grad_()
    loss = policy.of(logprobs, slice(0, 8))
    assert loss.item() == 0.0  # one +1 and one -1 sequence at ratio 1
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert gradient.abs().tolist() == [0.25 if counted else 0.0 for counted in mask]
