"""Routes of a real mixture of experts in two dtypes: flips carry Δ, and no sign is seen in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.diagnosis.routing import routing_agreement
from driftscope_probes.diagnosis.routing_integrity import routing_integrity
from driftscope_probes.mismatch.number import Undefined
from driftscope_probes.models import tiny_random
from driftscope_probes.tokens import Extras, Tokens

pytestmark = pytest.mark.slow
SEQUENCES, LENGTH, IDS, K = 16, 128, 256, 2  # the tokenizer has a token for every byte
#: Tokens of each sequence that repeat one id in the text with loops.
LOOP = slice(30, 90)


@dataclass(frozen=True)
class Scored:
    tokens: Tokens
    bf16: NDArray[np.int64]  # [tokens, layers, k]
    fp32: NDArray[np.int64]

    def without_ids(self) -> Tokens:
        return replace(self.tokens, extras=Extras())


@pytest.fixture(scope="module", params=["random text", "text with loops"])
def scored(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scored]:
    torch = pytest.importorskip("torch")
    folder: Path = tmp_path_factory.mktemp("moe")
    tiny_random.build_moe(folder, lambda progress: None)
    ids = torch.randint(0, IDS, (SEQUENCES, LENGTH), generator=torch.manual_seed(0))
    if request.param == "text with loops":
        ids[:, LOOP] = ids[:, LOOP.start : LOOP.start + 1]
    sides = [_forward(folder, ids, dtype) for dtype in (torch.bfloat16, torch.float32)]
    (rollout, bf16), (trainer, fp32) = sides
    scored_ids = ids[:, 1:].reshape(-1).numpy()
    limits = np.arange(SEQUENCES + 1) * (LENGTH - 1)
    tokens = Tokens(rollout, trainer, limits, None, Extras(token_ids=scored_ids))
    yield Scored(tokens, bf16, fp32)


def _forward(folder: Path, ids: Any, dtype: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Log-probabilities of the next tokens [tokens], routes of those that predict them."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    routers: list[Any] = []
    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(lambda module, given, out: routers.append(out))
    with torch.no_grad():
        logits = model(ids).logits.float()
    logprobs = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])
    chosen = [
        (out[0] if isinstance(out, tuple) else out).float().reshape(*ids.shape, -1).topk(K).indices
        for out in routers
    ]
    routes = torch.stack(chosen, 2)[:, :-1].flatten(0, 1)
    return logprobs.double().flatten().numpy(), routes.numpy()


def test_flips_carry_the_difference(scored: Scored) -> None:
    found = routing_agreement(scored.tokens, scored.bf16, scored.fp32)
    means = found.flipped.abs_diff_mean, found.agreeing.abs_diff_mean
    assert not isinstance(means[0], Undefined) and not isinstance(means[1], Undefined)
    assert not isinstance(found.choices_flipped, Undefined)
    assert 0.002 < found.choices_flipped < 0.10
    assert means[0] > 5 * means[1]


def test_rounding_shows_no_sign(scored: Scored) -> None:
    for tokens in (scored.tokens, scored.without_ids()):
        assert routing_integrity(tokens, scored.bf16, scored.fp32).significant == ()


def test_stale_and_shifted_rows_of_this_model_are_seen(scored: Scored) -> None:
    stale = scored.bf16.copy()
    stale[300:367] = stale[299]
    by_name = {
        sign.name: sign for sign in routing_integrity(scored.tokens, stale, scored.fp32).significant
    }
    assert (by_name["repeated_rows"].sequence, by_name["repeated_rows"].side) == (2, "rollout")
    shifted = routing_integrity(scored.tokens, np.roll(scored.bf16, 1, axis=0), scored.fp32)
    assert "shifted_rows" in {sign.name for sign in shifted.significant}
