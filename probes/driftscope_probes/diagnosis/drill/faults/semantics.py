"""Faults of meaning: both sides are right, and speak of different distributions.

In: a lab, a severity, a setting. Out: the pushed step. Temperature, scaling, truncation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.lab import Lab, Sampled
from driftscope_probes.diagnosis.drill.pool import between, rollout, scores
from driftscope_probes.push.pushed_step import PushedStep

#: Temperatures that people sample at lie between 0.6 and 1.5; 0.97 is the least that is set.
NEAREST, COLDEST, HOTTEST = 0.03, 0.5, 1.5
#: top_p, top_k and min_p from hardly any effect to what model cards recommend and beyond.
TOP_P = (0.98, 0.7)
TOP_K = (100, 5)
MIN_P = (0.01, 0.2)
#: generation_config.json of Qwen3 sets 20 and 0.95 or 0.8.
DEFAULT_TOP_K = (50, 10)


def temperature(severity: float, rng: np.random.Generator) -> float:
    """Two of three are below 1, as in life."""
    if rng.random() < 2 / 3:
        return round(1.0 - between(NEAREST, 1.0 - COLDEST, severity), 3)
    return round(1.0 + between(NEAREST, HOTTEST - 1.0, severity), 3)


def silent(lab: Lab, sampled: Sampled) -> dict[str, str]:
    """Metadata of a trainer that says nothing of its sampling: the defaults."""
    plain = {"temperature": "1.0", "top_p": "1.0", "top_k": "0", "logprobs_mode": "raw_logprobs"}
    return lab.metadata(sampled) | plain


def raw_against_divided(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    asked = replace(setting, temperature=temperature(severity, rng), processed=False)
    sampled = rollout(lab, asked)
    scored = scores(lab, asked, sampled, asked.temperature)
    return lab.step(sampled, scored, _told(lab, sampled, rng))


def processed_against_plain(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    asked = replace(setting, temperature=temperature(severity, rng), processed=True)
    sampled = rollout(lab, asked)
    scored = scores(lab, asked, sampled, 1.0)
    return lab.step(sampled, scored, _told(lab, sampled, rng))


def _told(lab: Lab, sampled: Sampled, rng: np.random.Generator) -> dict[str, str]:
    return lab.metadata(sampled) if rng.random() < 0.5 else silent(lab, sampled)


def scaled_rollout(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The engine samples at T and divides the log-probabilities by T, instead of the logits."""
    asked = replace(setting, temperature=temperature(severity, rng), processed=False)
    sampled = rollout(lab, asked)
    divided = tuple(values / np.float32(asked.temperature) for values in sampled.logprobs)
    scored = scores(lab, asked, sampled, 1.0)
    return lab.step(replace(sampled, logprobs=divided), scored, _told(lab, sampled, rng))


def scaled_trainer(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The engine samples at T and reports raw values; the trainer divides its own by T."""
    asked = replace(setting, temperature=temperature(severity, rng), processed=False)
    sampled = rollout(lab, asked)
    scored = scores(lab, asked, sampled, 1.0)
    divided = replace(scored, logprobs=scored.logprobs / np.float32(asked.temperature))
    return lab.step(sampled, divided, _told(lab, sampled, rng))


def truncation(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    kind = ("top_p", "top_p", "top_k", "min_p")[int(rng.integers(4))]
    asked = replace(setting, processed=True)
    if kind == "top_p":
        asked = replace(asked, top_p=round(between(*TOP_P, severity), 3))
    elif kind == "top_k":
        asked = replace(asked, top_k=round(between(*TOP_K, severity)))
    else:
        asked = replace(asked, min_p=round(between(*MIN_P, severity), 3))
    sampled = rollout(lab, asked)
    metadata = {"min_p": str(asked.min_p)} if asked.min_p else None
    return lab.step(sampled, scores(lab, asked, sampled), metadata)


def generation_config_default(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The request leaves top_p and top_k open, the model's own file fills them in."""
    asked = replace(
        setting,
        processed=True,
        top_k=round(between(*DEFAULT_TOP_K, severity)),
        top_p=round(between(0.95, TOP_P[1], severity), 3),
    )
    sampled = rollout(lab, asked)
    unaware = silent(lab, sampled) | {"logprobs_mode": "processed_logprobs"}
    return lab.step(sampled, scores(lab, asked, sampled), unaware)


INJECTIONS: tuple[Injection, ...] = (
    Injection(
        "temperature_semantics",
        "a",
        "the engine samples at T and reports raw values, the trainer divides its logits by T",
        raw_against_divided,
    ),
    Injection(
        "temperature_semantics",
        "b",
        "the engine reports values processed at T, the trainer does not divide",
        processed_against_plain,
    ),
    Injection(
        "post_softmax_scaling",
        "a",
        "the engine's log-probabilities are divided by T instead of its logits",
        scaled_rollout,
    ),
    Injection(
        "post_softmax_scaling",
        "b",
        "the trainer divides its log-probabilities by T; the engine samples at T, reports raw",
        scaled_trainer,
    ),
    Injection(
        "truncation_renorm",
        "a",
        "top-p, top-k or min-p of the request in processed values, the trainer sums over all",
        truncation,
    ),
    Injection(
        "truncation_renorm",
        "b",
        "top-k and top-p come from generation_config.json; the metadata claim top_p 1",
        generation_config_default,
    ),
)
