"""Faults put into the made-up policy, each as it comes about in life, by the name of its cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.observed import Observed

from .made_up_policy import Floats, MadeUpPolicy, Pair, log_softmax

Fault = Callable[[int, str], Observed]
FAULTS: list[tuple[str, Fault]] = []


def fault(cause: str) -> Callable[[Fault], Fault]:
    def keep(make: Fault) -> Fault:
        FAULTS.append((cause, make))
        return make

    return keep


def noisier(policy: MadeUpPolicy, scale: Floats | float) -> Floats:
    """The trainer's logits with more noise, `scale` nats, on the tokens where it is not 0."""
    logits = policy.trainer_logits()
    column = np.broadcast_to(np.asarray(scale, np.float64), logits.shape[:1])[:, None]
    moved: Floats = logits + column * policy.rng.standard_normal(logits.shape)
    return moved


def with_noise(policy: MadeUpPolicy, pair: Pair, scale: Floats | float) -> Pair:
    return pair.changed(trainer=policy.of(log_softmax(noisier(policy, scale))))


@fault("temperature_semantics")
def processed_against_raw(seed: int, dtype: str) -> Observed:
    return MadeUpPolicy(seed, dtype=dtype, temperature=0.7).pair().observed()


@fault("temperature_semantics")
def raw_against_scaled(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype, temperature=0.6)
    pair = policy.pair(
        reported=log_softmax(policy.engine), logits=policy.trainer_logits() / policy.temperature
    )
    pair.metadata["temperature"] = "0.6"
    return pair.observed(bare=True)


@fault("temperature_semantics")
def hotter(seed: int, dtype: str) -> Observed:
    return MadeUpPolicy(seed, dtype=dtype, temperature=1.2).pair().observed(bare=True)


@fault("post_softmax_scaling")
def divided_after(seed: int, dtype: str) -> Observed:
    pair = MadeUpPolicy(seed, dtype=dtype).pair()
    return pair.changed(rollout=pair.rollout / 0.8).observed(bare=True)


@fault("truncation_renorm")
def nucleus(seed: int, dtype: str) -> Observed:
    return MadeUpPolicy(seed, dtype=dtype, keep=0.8).pair().observed(bare=True)


@fault("truncation_renorm")
def wide_nucleus(seed: int, dtype: str) -> Observed:
    pair = MadeUpPolicy(seed, dtype=dtype, keep=0.95).pair()
    pair.metadata.update(top_p="0.95", logprobs_mode="processed_logprobs")
    return pair.observed()


@fault("off_by_one")
def shifted(seed: int, dtype: str) -> Observed:
    pair = MadeUpPolicy(seed, dtype=dtype).pair()
    return pair.changed(trainer=np.roll(pair.trainer, -1)).observed(bare=True)


@fault("prompt_response_mispaired")
def swapped_rows(seed: int, dtype: str) -> Observed:
    pair = MadeUpPolicy(seed, dtype=dtype, length=64).pair()
    length = 64
    count = pair.rollout.size // length
    rows = pair.trainer[: count * length].reshape(count, length)[np.roll(np.arange(count), 1)]
    cut = {
        "rollout": pair.rollout[: count * length],
        "trainer": rows.ravel(),
        "limits": np.arange(0, count * length + 1, length),
    }
    return pair.changed(**cut).observed(bare=True)


@fault("placeholder_logprob")
def appended_ends(seed: int, dtype: str) -> Observed:
    pair = MadeUpPolicy(seed, dtype=dtype).pair()
    rollout, trainer, last = pair.rollout.copy(), pair.trainer.copy(), pair.limits[1:] - 1
    rollout[last] = 0.0
    trainer[last] -= 2.0
    return pair.changed(rollout=rollout, trainer=trainer).observed(bare=True)


@fault("sentinel_or_nan_logprob")
def cascade(seed: int, dtype: str) -> Observed:
    pair = MadeUpPolicy(seed, dtype=dtype).pair()
    trainer = pair.trainer.copy()
    trainer[pair.limits[3] + 5 : pair.limits[4]] = np.nan
    return pair.changed(trainer=trainer).observed(bare=True)


@fault("positive_logprob")
def rounded_logit(seed: int, dtype: str) -> Observed:
    pair = MadeUpPolicy(seed, dtype=dtype).pair()
    rounding = np.random.default_rng(seed).uniform(-0.06, 0.06, pair.trainer.size)
    return pair.changed(trainer=pair.trainer + rounding).observed(bare=True)


@fault("mask_contamination")
def tool_tokens(seed: int, dtype: str) -> Observed:
    pair = MadeUpPolicy(seed, dtype=dtype).pair()
    rng = np.random.default_rng(seed)
    rollout, trainer = pair.rollout.copy(), pair.trainer.copy()
    for start, stop in zip(pair.limits[:-1], pair.limits[1:], strict=True):
        length = stop - start
        inside = slice(start + length // 3, start + length // 2)
        count = inside.stop - inside.start
        rollout[inside] = -rng.exponential(1.5, count)
        trainer[inside] = -rng.exponential(3.0, count)
    return pair.changed(rollout=rollout, trainer=trainer).observed(bare=True)


@fault("last_token_label")
def next_rows_label(seed: int, dtype: str) -> Observed:
    pair = MadeUpPolicy(seed, dtype=dtype).pair()
    trainer = pair.trainer.copy()
    ends = pair.limits[1:] - 1
    trainer[ends] -= np.random.default_rng(seed).exponential(6.0, ends.size)
    return pair.changed(trainer=trainer).observed(bare=True)


@fault("fp8_kv_tile")
def from_position_97(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype, length=90)
    pair = policy.pair()
    return with_noise(policy, pair, 0.35 * (pair.positions >= 97)).observed()


@fault("thinking_stripped")
def second_turn(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype)
    pair = policy.pair()
    turns = (pair.index >= 30 + pair.sequence % 17).astype(np.int64)
    pair.extras["turn_ids"] = turns
    return with_noise(policy, pair, 0.8 * turns).observed()


def _sequences(
    seed: int, dtype: str, which: Callable[[Any], NDArray[np.bool_]], size: float = 0.8
) -> tuple[Pair, NDArray[np.bool_]]:
    policy = MadeUpPolicy(seed, dtype=dtype, sequences=32)
    pair = policy.pair()
    chosen = which(policy.rng)
    return with_noise(policy, pair, size * chosen[pair.sequence]), chosen


@fault("rank_local_corruption")
def third_rank(seed: int, dtype: str) -> Observed:
    pair, _ = _sequences(seed, dtype, lambda rng: np.arange(32) // 8 == 2)
    pair.extras["rank"] = np.arange(32) // 8
    return pair.observed()


@fault("rank_local_corruption")
def a_rank_without_label(seed: int, dtype: str) -> Observed:
    pair, _ = _sequences(seed, dtype, lambda rng: np.arange(32) // 8 == 2)
    return pair.observed(bare=True)


@fault("replica_differs")
def second_replica(seed: int, dtype: str) -> Observed:
    pair, _ = _sequences(seed, dtype, lambda rng: np.arange(32) % 4 == 1)
    pair.extras["replica"] = np.arange(32) % 4
    return pair.observed()


@fault("replica_differs")
def a_replica_without_label(seed: int, dtype: str) -> Observed:
    pair, _ = _sequences(seed, dtype, lambda rng: np.arange(32) % 4 == 1)
    return pair.observed(bare=True)


@fault("stale_prefix_cache")
def cached_prefixes(seed: int, dtype: str) -> Observed:
    pair, cached = _sequences(seed, dtype, lambda rng: rng.random(32) < 0.4)
    pair.extras["cached_tokens"] = np.where(cached, 16, 0)
    return pair.observed()


@fault("stale_prefix_cache")
def scattered_sequences(seed: int, dtype: str) -> Observed:
    pair, _ = _sequences(seed, dtype, lambda rng: rng.random(32) < 0.4)
    return pair.observed()


@fault("pad_attended")
def by_padding(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype, sequences=32)
    pair = policy.pair()
    lengths = np.diff(pair.limits)
    padding = (lengths.max() - lengths)[pair.sequence]
    return with_noise(policy, pair, 0.02 * padding).observed()


@fault("packed_attention_leak")
def all_but_the_first(seed: int, dtype: str) -> Observed:
    pair, _ = _sequences(seed, dtype, lambda rng: np.arange(32) % 4 != 0)
    return pair.observed()


@fault("packed_state_leak")
def fading(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype, sequences=32)
    pair = policy.pair()
    later = pair.sequence % 4 != 0
    return with_noise(policy, pair, later * 2.0 * np.exp(-pair.index / 15)).observed()


@fault("stale_engine_weights")
def along_the_gradient(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype, sequences=48)
    pair = policy.pair()
    logits = noisier(policy, 0.15)
    logits[np.arange(policy.ids.size), policy.ids] += 0.15 * pair.advantages
    return pair.changed(trainer=policy.of(log_softmax(logits))).observed()


@fault("policy_staleness")
def known_lag(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype, sequences=48)
    pair = policy.pair()
    lag = policy.rng.integers(0, 4, 48)
    pair.extras.update(behavior_version=10 - lag, train_version=10)
    return with_noise(policy, pair, 0.2 * lag[pair.sequence]).observed()


@fault("quantized_weights")
def stated_fp8(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype)
    pair = policy.pair(logits=noisier(policy, 0.3))
    pair.metadata["quantization"] = "fp8"
    return pair.observed()


@fault("spec_decode_logprobs")
def last_five(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype)
    pair = policy.pair()
    from_end = np.repeat(pair.limits[1:], np.diff(pair.limits)) - np.arange(pair.rollout.size)
    return with_noise(policy, pair, 1.2 * (from_end <= 5)).observed()


@fault("retokenization_drift")
def another_split(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype, sequences=32)
    pair = policy.pair()
    start = pair.limits[:-1] + policy.rng.integers(10, 50, 32)
    chosen = pair.sequence % 3 == 0
    after = np.arange(pair.rollout.size) >= start[pair.sequence]
    moved = with_noise(policy, pair, 1.0 * (after & chosen))
    trainer = moved.trainer.copy()
    trainer[start[::3]] -= 4.0
    return moved.changed(trainer=trainer).observed()


@fault("chunked_prompt_logprobs")
def borders_of_64(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype, length=300, sequences=12)
    pair = policy.pair()
    trainer = pair.trainer.copy()
    border = pair.positions % 64 == 0
    trainer[border] -= policy.rng.exponential(4.0, int(border.sum()))
    return pair.changed(trainer=trainer).observed()


@fault("lm_head_precision")
def bf16_logits(seed: int, dtype: str) -> Observed:
    """In a float32 pair: nothing else there is as coarse."""
    policy = MadeUpPolicy(seed, dtype="fp32")
    mantissa, exponent = np.frexp(policy.trainer_logits())
    return policy.pair(logits=np.ldexp(np.round(mantissa * 256) / 256, exponent)).observed()


@fault("moe_routing_flip")
def single_wild_tokens(seed: int, dtype: str) -> Observed:
    policy = MadeUpPolicy(seed, dtype=dtype)
    pair = policy.pair()
    pair.metadata["model"] = "Qwen3-30B-A3B"
    flipped = policy.rng.random(pair.rollout.size) < 0.06
    return with_noise(policy, pair, 1.5 * flipped).observed(bare=True)
