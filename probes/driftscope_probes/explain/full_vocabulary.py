"""Whole distributions of both sides, over the vocabulary and not at the sampled token alone.

In: the passes, each side's own log-softmax. Out: FullVocabulary. Logits lie on disk and are read a
few rows at a time: [tokens, vocabulary] is never in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_bits import bits
from driftscope_probes.explain.comparison import Passes
from driftscope_probes.explain.report import FullVocabulary
from driftscope_probes.explain.sides.base import Side
from driftscope_probes.explain.sites import Place

LOGITS: Final = Place(None, "logits")
#: As many alternatives as engines give for a token (vLLM's max_logprobs).
TOP_K: Final = 20
#: Of one side's logits in one step, in float64, of which some eight copies are alive at once.
STEP_BYTES: Final = 2**24
#: Of one side's logits altogether, as float32: of longer samples the first rows are compared.
MOST_LOGIT_BYTES: Final = 2**32


@dataclass(frozen=True, slots=True)
class Compared:
    """Per token of some rows, [rows] each."""

    equal: Tensor  # bool: on the whole vocabulary
    equal_sampled: Tensor  # bool
    forward: Tensor  # float64 nats: KL of the engine from the trainer
    backward: Tensor  # float64 nats: KL of the trainer from the engine
    variation: Tensor  # float64, total variation: 0 to 1
    overlap: Tensor  # float64, part of the top-k that both have


def full_vocabulary_of(passes: Passes, engine: Side, trainer: Side) -> FullVocabulary | None:
    """None: a side's logits were not seen."""
    if not all(LOGITS in store.places for store in (passes.engine, passes.trainer)):
        return None
    scored = torch.from_numpy(passes.sample.scored)
    vocabulary = passes.engine.read_rows(LOGITS, scored[:1]).shape[1]
    rows = scored[: max(1, MOST_LOGIT_BYTES // (4 * vocabulary))]
    targets = torch.from_numpy(passes.sample.targets)

    def steps() -> Iterator[Compared]:
        for step in torch.split(rows, max(1, STEP_BYTES // (8 * vocabulary))):
            mine = engine.logprobs(passes.engine.read_rows(LOGITS, step))
            theirs = trainer.logprobs(passes.trainer.read_rows(LOGITS, step))
            yield compared(mine, theirs, targets[step])

    return summed_up(steps(), vocabulary, len(scored))


def compared(engine: Tensor, trainer: Tensor, sampled: Tensor) -> Compared:
    """Log-probabilities float32 [rows, vocabulary] in nats; `sampled` int64 [rows].

    Tokens that a side excludes (−∞) add nothing where it is the one averaged over, and make the
    other divergence infinite. A row with a NaN is unequal and its divergences are NaN.
    """
    same = bits(engine) == bits(trainer)
    mine, theirs = engine.double(), trainer.double()
    p, q = mine.exp(), theirs.exp()
    k = min(TOP_K, engine.shape[1])
    return Compared(
        equal=same.all(1),
        equal_sampled=same.gather(1, sampled[:, None])[:, 0],
        forward=_kl(p, mine, theirs),
        backward=_kl(q, theirs, mine),
        variation=(p - q).abs().sum(1) / 2,
        overlap=_overlap(engine, trainer, k),
    )


def _kl(p: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Σ p·(left − right), in float64.

    Each term is written p·(d + e^−d − 1), which is never negative and sums to the same where both
    sum to one: float32 log-probabilities do so only to 1e-7, which the plain sum would be made of.
    """
    apart = left - right
    terms = p * (apart + torch.expm1(-apart))
    return torch.where(p == 0, _excluded(right), terms).sum(1)


def _excluded(right: Tensor) -> Tensor:
    """p → 0 of p·(d + e^−d − 1): what the other side gives the token."""
    return right.exp()


def _overlap(engine: Tensor, trainer: Tensor, k: int) -> Tensor:
    # Stable, so that equal values are ranked alike on both sides.
    tops = [
        side.sort(dim=1, descending=True, stable=True).indices[:, :k] for side in (engine, trainer)
    ]
    mine, theirs = tops
    both = (mine[:, :, None] == theirs[:, None, :]).any(2)
    return both.double().mean(1)


def summed_up(steps: Iterable[Compared], vocabulary: int, scored: int) -> FullVocabulary:
    """`scored`: tokens in all, of which the steps hold the first."""
    parts = list(steps)

    def of(name: str) -> Tensor:
        joined: Tensor = torch.cat([getattr(part, name) for part in parts])
        return joined.double()

    equal, sampled = float(of("equal").mean()), float(of("equal_sampled").mean())
    forward, backward, variation = of("forward"), of("backward"), of("variation")
    tokens = len(forward)
    return FullVocabulary(
        tokens=tokens,
        vocabulary=vocabulary,
        equal_tokens=equal,
        equal_sampled=sampled,
        kl_engine_trainer_mean=float(forward.mean()),
        kl_engine_trainer_max=float(forward.max()),
        kl_trainer_engine_mean=float(backward.mean()),
        kl_trainer_engine_max=float(backward.max()),
        total_variation_mean=float(variation.mean()),
        total_variation_max=float(variation.max()),
        top_k=min(TOP_K, vocabulary),
        top_k_overlap=float(of("overlap").mean()),
        sentence=_sentence(tokens, scored, vocabulary, equal, sampled, float(forward.mean())),
    )


def _sentence(
    tokens: int, scored: int, vocabulary: int, equal: float, sampled: float, divergence: float
) -> str:
    part = "" if tokens == scored else f" Compared were the first {tokens:,} of {scored:,} tokens."
    if equal == 1.0:
        return (
            "Equality on sampled tokens also holds on all "
            f"{vocabulary:,} of the vocabulary, at each of {tokens:,} tokens.{part}"
        )
    if sampled == 1.0:
        return (
            "Equality on sampled tokens does not hold on the whole vocabulary: "
            f"{1 - equal:.1%} of {tokens:,} tokens differ somewhere in {vocabulary:,}.{part}"
        )
    return (
        f"Log-probabilities are equal at {sampled:.1%} of {tokens:,} sampled tokens, and on all "
        f"{vocabulary:,} of the vocabulary at {equal:.1%}; the divergence of the engine from the "
        f"trainer is {divergence:.3g} nats on average.{part}"
    )
