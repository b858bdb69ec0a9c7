"""The proof for a trainer of TRL's whose engine is in its own process (vllm_mode="colocate").

    class Trainer(DriftscopeMixin, OnPolicyMixin, GRPOTrainer): ...

OnPolicyMixin offers `weights_digest`, and DriftscopeMixin pushes it with the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any, Final

import torch
from torch import Tensor

from driftscope_kernels.invariant_mode import invariant_mode
from driftscope_kernels.on_policy.sides import causal_model, engine_model, trainer_model
from driftscope_kernels.on_policy.token_scores import completion_scores
from driftscope_kernels.on_policy.weights.proof import EXACT, WeightsProof
from driftscope_kernels.on_policy.weights.recorded import WeightsDigest

#: Known tokens: enough to reach a page's end in no cache, few enough for a short forward.
KNOWN_TOKENS: Final = 32
_KEPT: Final = "_weights_proof"


class ColocatedProof:
    """Looks where the engine has weights: TRL's sleep mode drops them after every generation, so
    that there it looks right after a sync."""

    def __init__(self, trainer: Any, *, exact: bool) -> None:
        self._trainer, self._generation = trainer, trainer.vllm_generation
        self._proof = WeightsProof(
            trainer_model(trainer),
            engine_model(trainer),
            ask=(self._by_engine, self._by_trainer),
            allowed=EXACT if exact else None,
        )
        self._exact = exact
        self._ids = known_tokens(int(self._generation.llm.llm_engine.model_config.get_vocab_size()))
        self._awake: WeightsDigest | None = None
        if self._generation.enable_sleep_mode:
            self._generation.sync_weights = self._looked_after(self._generation.sync_weights)

    def digest(self) -> WeightsDigest | None:
        if self._generation.enable_sleep_mode:
            return self._awake
        return self._proof.check(self._trainer.state.global_step)

    def _looked_after(self, sync: Any) -> Any:
        @wraps(sync)
        def call(*arguments: Any, **named: Any) -> Any:
            result = sync(*arguments, **named)
            self._awake = self._proof.check(self._trainer.state.global_step)
            return result

        return call

    def _by_engine(self) -> Sequence[float]:
        from vllm import SamplingParams

        # Greedy, so that no generator of the run's moves; a prompt with log-probabilities takes
        # nothing from the prefix cache.
        asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        (output,) = self._generation.llm.generate(
            [{"prompt_token_ids": self._ids}], [asked], use_tqdm=False
        )
        steps = zip(self._ids[1:], output.prompt_logprobs[1:], strict=True)
        return [step[token].logprob for token, step in steps]

    def _by_trainer(self) -> Sequence[float]:
        model = causal_model(trainer_model(self._trainer))
        ids = torch.tensor([self._ids])
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                logprobs = _exact(model, ids) if self._exact else _plain(model, ids)
        finally:
            model.train(training)
        found: list[float] = logprobs.tolist()
        return found


def _exact(model: Any, ids: Tensor) -> Tensor:
    with invariant_mode():
        scores = completion_scores(model, ids, torch.ones_like(ids), ids.shape[1] - 1, 1.0)
    return scores.logprobs[0]


def _plain(model: Any, ids: Tensor) -> Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    found: Tensor = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return found


def colocated_digest(trainer: Any, *, exact: bool) -> WeightsDigest | None:
    """Of now. The first call sets up what later ones use."""
    proof = getattr(trainer, _KEPT, None)
    if proof is None:
        proof = ColocatedProof(trainer, exact=exact)
        setattr(trainer, _KEPT, proof)
    return proof.digest()


def known_tokens(vocabulary: int) -> list[int]:
    """The same for every run of a vocabulary, spread over it."""
    draw = torch.Generator().manual_seed(0)
    ids: list[int] = torch.randint(vocabulary, (KNOWN_TOKENS,), generator=draw).tolist()
    return ids
