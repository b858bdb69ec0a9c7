"""Healthy: pairs without a fault, in which nothing may be found.

In: a severity (here: which of several kinds), a setting. Out: the pushed step. Untouched pairs with
other batches, sampling and turns; and a made-up policy at levels that others published, of models
that fit on no small machine: logits of the same kind, with noise of their size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.lab import SHORTEST_RESPONSE, WEIGHTS_VERSION, Lab
from driftscope_probes.diagnosis.drill.pool import pair, scores
from driftscope_probes.diagnosis.drill.transcript import (
    conversation_step,
    masked_part,
    turn_part,
    turns_of,
)
from driftscope_probes.push.pushed_step import PushedStep, pushed_step

CLASSES = 1024
#: Shape and scale of the logits' spread from token to token: some are certain, others open.
SPREAD_SHAPE, SPREAD_SCALE = 4.0, 1.1
#: Noise differs a little between texts: standard deviation of its logarithm per sequence.
BETWEEN_SEQUENCES = 0.1
#: std(Δ) = sigma × root mean square of 1 - p; about this for sampled text.
RMS_OF_REST = 0.75
#: Logits of so many tokens at a time: 64 MB.
CHUNK = 8192
#: More say nothing new and take seconds.
MOST_TOKENS = 24_000


@dataclass(frozen=True, slots=True)
class Level:
    """std of Δ in nats, batch 1 against batch 8, 4,000 tokens (batch-logprob-gap, Sep 2026)."""

    model: str
    dtype: str
    std: float


LEVELS: tuple[Level, ...] = (
    Level("Qwen/Qwen2.5-0.5B-Instruct", "fp32", 1.00e-5),
    Level("Qwen/Qwen2.5-7B-Instruct", "fp32", 1.22e-5),
    Level("Qwen/Qwen2.5-7B-Instruct", "fp16", 0.00564),
    Level("Qwen/Qwen2.5-1.5B-Instruct", "fp16", 0.00669),
    Level("Qwen/Qwen2.5-0.5B-Instruct", "fp16", 0.00855),
    Level("Qwen/Qwen2.5-7B-Instruct", "bf16", 0.0462),
    Level("Qwen/Qwen2.5-0.5B-Instruct", "bf16", 0.0509),
    Level("Qwen/Qwen2.5-1.5B-Instruct", "bf16", 0.0531),
    Level("Qwen/Qwen2.5-0.5B-Instruct", "bf16", 0.0600),
    # NeoX amplifies rounding in its last layers: large, and still rounding.
    Level("EleutherAI/pythia-160m", "fp16", 0.154),
    Level("EleutherAI/pythia-160m", "bf16", 1.247),
)


def published(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    level = LEVELS[min(int(severity * len(LEVELS)), len(LEVELS) - 1)]
    shortest = max(1, int(SHORTEST_RESPONSE * setting.max_tokens))
    lengths = rng.integers(shortest, setting.max_tokens + 1, size=setting.sequences)
    lengths = lengths[: max(1, int(np.searchsorted(np.cumsum(lengths), MOST_TOKENS)))]
    limits = np.concatenate([[0], np.cumsum(lengths)])
    noise = level.std / RMS_OF_REST * np.exp(rng.normal(0.0, BETWEEN_SEQUENCES, lengths.size))
    per_token = np.repeat(noise, lengths)
    parts = [
        _sampled(per_token[start : start + CHUNK], rng) for start in range(0, per_token.size, CHUNK)
    ]
    rollout, trainer, ids = (np.concatenate(values) for values in zip(*parts, strict=True))
    return pushed_step(
        {
            "rollout_logprobs": rollout.astype(np.float32),
            "trainer_logprobs": trainer.astype(np.float32),
            "cu_seqlens": limits.astype(np.int64),
            "token_ids": ids.astype(np.int32),
            "advantages": np.repeat(lab.advantages(lengths.size), lengths).astype(np.float32),
            "behavior_version": np.full(lengths.size, WEIGHTS_VERSION, np.int32),
        },
        {
            "model": level.model,
            "rollout_dtype": level.dtype,
            "trainer_dtype": level.dtype,
            "temperature": "1.0",
            "top_p": "1.0",
            "weights_version": str(WEIGHTS_VERSION),
        },
    )


def _sampled(
    noise: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Both sides' log-probabilities and the ids, [tokens]; each side has half the variance."""
    spread = rng.gamma(SPREAD_SHAPE, SPREAD_SCALE, size=(noise.size, 1))
    logits = rng.standard_normal((noise.size, CLASSES)) * spread
    sides = [
        logits + noise[:, None] / np.sqrt(2.0) * rng.standard_normal(logits.shape) for _ in range(2)
    ]
    ids = (sides[0] + rng.gumbel(size=logits.shape)).argmax(-1)
    rollout, trainer = (_log_softmax(side)[np.arange(ids.size), ids] for side in sides)
    return rollout, trainer, ids


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised


def untouched(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    """Real pairs that some trainer would run like this; both sides mean the same distribution."""
    shapes = replace(
        setting,
        batch=max(1, int(rng.integers(1, setting.sequences + 1))) if rng.random() < 0.3 else None,
        microbatch=int(rng.choice((1, 4, 8, 16))),
    )
    kind = int(severity * 5)
    if kind == 1:  # both sides divide by T
        warm = replace(shapes, temperature=float(rng.choice((0.6, 0.8, 1.2))), processed=True)
        return _plain(lab, warm)
    if kind == 2:  # truncated sampling, reported over all classes
        return _plain(lab, replace(shapes, top_p=0.9, processed=False))
    if kind == 3:  # a conversation with what others said masked
        turns = turns_of(lab, setting, 2)
        present = bool(rng.random() < 0.5)
        parts = [
            turn_part(turns[0], scores(lab, setting, turns[0].sampled)),
            masked_part(turns[0], present=present),
            turn_part(turns[1], scores(lab, setting, turns[1].sampled)),
        ]
        return conversation_step(lab, turns, parts, with_turns=bool(rng.random() < 0.5))
    return _plain(lab, shapes)


def _plain(lab: Lab, setting: Setting) -> PushedStep:
    sound = pair(lab, setting)
    return lab.step(sound.sampled, sound.scored)


INJECTIONS: tuple[Injection, ...] = (
    Injection(None, "a", "nothing: real pairs in other batches, samplings and turns", untouched),
    Injection(None, "b", "nothing: a made-up policy at levels that others published", published),
)
