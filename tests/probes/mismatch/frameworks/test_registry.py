from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch.frameworks import FRAMEWORKS, aliases
from driftscope_probes.tokens import Tokens, checked_tokens

NAMES = {*FRAMEWORKS, "prime_rl"}


def test_every_batch_has_every_framework_and_fits_into_json(
    batch: Callable[[int], Tokens], adversarial: Callable[[int], Tokens]
) -> None:
    for pair in [batch(seed) for seed in range(20)] + [adversarial(seed) for seed in range(20)]:
        values = aliases(pair)
        assert set(values) == NAMES
        assert json.loads(json.dumps(values, allow_nan=False)) == values


@pytest.mark.parametrize("tokens", [0, 3])
def test_a_batch_without_unmasked_tokens_is_answered(tokens: int) -> None:
    sides = np.full(tokens, -1.0)
    values = aliases(checked_tokens(sides, sides, [0, tokens], np.zeros(tokens, dtype=bool)))
    assert set(values) == NAMES
    assert values["torchtitan"]["bit_wise/logprob_diff/mean"] is None


def test_advantages_and_entropy_add_names_and_follow_the_mask() -> None:
    pair = checked_tokens(np.log([0.5, 0.5]), np.log([0.5, 0.9]), [0, 2], [False, True])
    with_both = aliases(pair, advantages=[-1.0, 1.0], entropy=[9.0, 2.0])["prime_rl"]
    assert with_both["is_masked_high"] == 1.0
    assert {"kl_ent_ratio/mean", "is_masked"} <= set(with_both) - set(aliases(pair)["prime_rl"])


def test_another_length_is_refused() -> None:
    pair = checked_tokens([-1.0], [-1.0], [0, 1])
    with pytest.raises(TraceError, match="advantages has shape"):
        aliases(pair, advantages=[1.0, 2.0])
