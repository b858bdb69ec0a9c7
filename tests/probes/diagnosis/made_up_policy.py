"""A made-up policy with all its logits, so that every fault can be put in exactly.

Both sides see the same logits with noise of their own; tokens are drawn from what the engine
reports. Nothing here knows how the diagnosis works.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.tokens import Extras, Tokens

Floats = NDArray[np.floating[Any]]
#: Noise on the logits of one side: with two of them about half the prior floor of bf16.
NOISE = {"bf16": 0.025, "fp16": 0.003, "fp32": 5e-6}


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(-1, keepdims=True)
    normalised: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised


@dataclass(frozen=True)
class Pair:
    """What both sides say; change arrays, then `observed()`."""

    rollout: Floats
    trainer: Floats
    limits: NDArray[np.int64]
    ids: NDArray[np.int64]
    entropy: Floats
    advantages: Floats
    prompt_lengths: NDArray[np.int64]
    metadata: dict[str, str]
    extras: dict[str, Any]

    @property
    def sequence(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(self.limits.size - 1), np.diff(self.limits))

    @property
    def index(self) -> NDArray[np.int64]:
        return np.arange(self.rollout.size) - np.repeat(self.limits[:-1], np.diff(self.limits))

    @property
    def positions(self) -> NDArray[np.int64]:
        return self.prompt_lengths[self.sequence] + self.index

    def changed(self, **values: Any) -> Pair:
        return replace(self, **values)

    def observed(self, *, bare: bool = False, **values: Any) -> Observed:
        """`bare`: nothing but log-probabilities, lengths and dtypes."""
        extras: dict[str, Any] = {}
        if not bare:
            extras = {
                "token_ids": self.ids,
                "entropy": self.entropy,
                "position_ids": self.positions,
                "prompt_lengths": self.prompt_lengths,
                **self.extras,
            }
        tokens = Tokens(
            self.rollout.astype(np.float32),
            self.trainer.astype(np.float32),
            self.limits,
            values.pop("mask", None),
            Extras(**extras),
        )
        return Observed(
            tokens, self.metadata, None if bare else self.advantages.astype(np.float32), **values
        )


class MadeUpPolicy:
    def __init__(
        self,
        seed: int = 0,
        sequences: int = 24,
        length: int = 80,
        classes: int = 512,
        dtype: str = "bf16",
        temperature: float = 1.0,
        keep: float = 1.0,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        lengths = np.maximum(8, self.rng.poisson(length, sequences))
        self.limits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = int(self.limits[-1])
        spread = self.rng.gamma(4.0, 1.1, (tokens, 1))
        self.logits = self.rng.standard_normal((tokens, classes)) * spread
        self.temperature = temperature
        self.keep = keep
        self.engine = self._noisy()
        self.sampled = log_softmax(self._kept(self.engine / temperature))
        gumbel = self.rng.gumbel(size=self.sampled.shape)
        self.ids = (self.sampled + gumbel).argmax(-1)

    def _noisy(self) -> Floats:
        noisy: Floats = self.logits + NOISE[self.dtype] * self.rng.standard_normal(
            self.logits.shape
        )
        return noisy

    def _kept(self, logits: Floats) -> Floats:
        if self.keep >= 1.0:
            return logits
        probability = np.exp(log_softmax(logits))
        order = np.argsort(-probability, -1)
        ranked = np.take_along_axis(probability, order, -1)
        inside = np.cumsum(ranked, -1) - ranked < self.keep
        mask = np.zeros(logits.shape, np.bool_)
        np.put_along_axis(mask, order, inside, -1)
        return np.where(mask, logits, -np.inf)

    def of(self, values: Floats) -> Floats:
        picked: Floats = np.take_along_axis(values, self.ids[:, None], 1)[:, 0]
        return picked

    def trainer_logits(self) -> Floats:
        return self._noisy()

    def pair(self, *, reported: Floats | None = None, logits: Floats | None = None) -> Pair:
        """`reported`: all log-probabilities of the engine; `logits`: the trainer's."""
        trainer = log_softmax(self.trainer_logits() if logits is None else logits)
        engine = self.sampled if reported is None else reported
        sequences = self.limits.size - 1
        rewards = self.rng.standard_normal(sequences)
        return Pair(
            rollout=self.of(engine),
            trainer=self.of(trainer),
            limits=self.limits,
            ids=self.ids,
            entropy=-np.sum(np.exp(trainer) * trainer, -1),
            advantages=np.repeat(rewards, np.diff(self.limits)),
            prompt_lengths=self.rng.integers(20, 60, sequences),
            metadata={"rollout_dtype": self.dtype, "trainer_dtype": self.dtype},
            extras={},
        )
