"""Faults of models, caches, batches and shares: each moves what it says, where it says, no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.damage import (
    quantised_e4m3,
    sigma,
    sigma_of,
    strength,
)
from driftscope_probes.diagnosis.drill.faults import batch, cache, model, rounding, shares, weights
from driftscope_probes.diagnosis.drill.faults.low_rank import (
    RANK,
    adapter_of,
    apply_adapter,
    attach_adapter,
)
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.diagnosis.drill.policies import qwen_seed
from driftscope_probes.diagnosis.drill.pool import pair
from driftscope_probes.diagnosis.drill.registry import INJECTIONS
from driftscope_probes.diagnosis.drill.updates import displacement, move
from driftscope_probes.dtypes import DTYPES, Dtype
from driftscope_probes.progress import discard
from driftscope_probes.push.pushed_step import PushedStep

SETTING = Setting("tiny", "tiny-qwen", "fp32", "fp32", sequences=8, max_tokens=24)
#: Nats in float32; measured up to 5e-6. Below any fault, above any order of summation.
ROUNDING = 5e-5
FAULTS: list[Injection] = [
    injection for part in (weights, model, cache, batch, shares) for injection in part.INJECTIONS
]
LABELS = {"rank", "replica", "cached_tokens"}
NOTES = {"lora_rank", "kv_cache_dtype", "enable_prefix_caching", "num_speculative_tokens"}


def _named(injection: Injection) -> str:
    return f"{injection.cause}-{injection.way}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A Qwen3 with random weights, whose rope base is not the default."""
    folder = tmp_path_factory.mktemp("qwen")
    qwen_seed(folder, discard)
    return Lab(folder, "fp32", "fp32", 0)


def inject(injection: Injection, lab: Lab, severity: float, seed: int = 0) -> PushedStep:
    return injection.inject(lab, severity, np.random.default_rng(seed), SETTING)


def the(cause: str, way: str) -> Injection:
    found = [one for one in FAULTS if (one.cause, one.way) == (cause, way)]
    return found[0]


def difference(step: PushedStep) -> NDArray[np.float64]:
    return step.trainer.astype(np.float64) - step.rollout


def _dtype(name: str) -> Dtype:
    """A quantised engine computes in the lab's float32."""
    return next((known for known in DTYPES if known == name), "fp32")


def healthy_sigma(lab: Lab, step: PushedStep) -> float:
    """Of an undamaged pair in the dtypes of the step."""
    rollout, trainer = (_dtype(step.metadata[f"{side}_dtype"]) for side in ("rollout", "trainer"))
    sound = Lab(lab.model_folder, rollout, trainer, lab.seed)
    made = pair(sound, SETTING)
    return sigma(np.concatenate(made.sampled.logprobs), made.scored.logprobs)


@pytest.mark.parametrize("injection", FAULTS, ids=_named)
def test_a_gross_fault_is_measurable_and_leaves_the_rest_alone(
    injection: Injection, lab: Lab
) -> None:
    step = inject(injection, lab, severity=1.0)
    made = pair(lab, SETTING)
    sound = lab.step(made.sampled, made.scored)
    assert sigma(step.rollout, step.trainer) > 1.3 * healthy_sigma(lab, step)
    assert step.sequences == sound.sequences
    assert np.isfinite(step.rollout).all() and np.isfinite(step.trainer).all()
    assert (step.rollout <= 0.0).all() and (step.trainer <= 0.0).all()
    assert set(step.tensors()) - set(sound.tensors()) <= LABELS
    assert set(sound.metadata) <= set(step.metadata) <= set(sound.metadata) | NOTES
    assert step.mask.all()


@pytest.mark.parametrize("cause", sorted({str(one.cause) for one in INJECTIONS if one.cause}))
def test_each_cause_has_two_ways_of_injection(cause: str) -> None:
    ways = [one for one in INJECTIONS if one.cause == cause]
    assert {one.way for one in ways} == {"a", "b"}
    assert len({one.description for one in ways}) == len(ways)


def test_healthy_settings_are_more_than_three_hundred_in_three_dtypes_and_two_families() -> None:
    settings = rounding.HEALTHY_SETTINGS
    assert len({setting.name for setting in settings}) == len(settings) > 300
    assert {setting.rollout_dtype for setting in settings} == set(DTYPES)
    assert {setting.model for setting in settings} >= {"tiny-llama", "tiny-qwen", "tiny-moe"}


def test_a_healthy_pair_is_at_rounding(lab: Lab) -> None:
    step = inject(rounding.INJECTIONS[0], lab, 0.5)
    assert np.abs(difference(step)).max() < ROUNDING


def test_a_wrong_configuration_is_mostly_met_at_the_first_step(lab: Lab) -> None:
    steps = [inject(the("trainer_model_bug", "a"), lab, 1.0, seed) for seed in range(8)]
    versions = [step.metadata["weights_version"] for step in steps]
    assert set(versions) == {"0", "20"}
    for step, version in zip(steps, versions, strict=True):
        assert step.extras.behavior_version is not None
        assert set(step.extras.behavior_version.tolist()) == {int(version)}
    stale = inject(the("stale_engine_weights", "a"), lab, 1.0)
    assert stale.metadata["weights_version"] == "20"


def test_an_adapter_is_always_noted_and_an_engines_settings_now_and_then(lab: Lab) -> None:
    assert inject(the("lora_not_applied", "b"), lab, 0.5).metadata["lora_rank"] == str(RANK)
    noted = {
        "kv_cache_dtype" in inject(the("fp8_kv_scales", "a"), lab, 0.5, seed).metadata
        for seed in range(8)
    }
    assert noted == {True, False}


# Dosage


@pytest.mark.parametrize("severity", [0.2, 0.8])
def test_a_dose_has_the_noise_that_its_severity_asks_for(lab: Lab, severity: float) -> None:
    dose = strength(lab, SETTING, model.extra_bias, severity, 1, (1e-4, 10.0))
    made = pair(lab, SETTING)
    damaged = lab.score(model.extra_bias(lab.trainer(fresh=True), dose, 1), made.sampled)
    measured = sigma(made.scored.logprobs, damaged.logprobs)
    # The dose is found on a few of the sequences.
    assert measured == pytest.approx(sigma_of(lab, severity), rel=0.4)


# Weights


@pytest.mark.parametrize("rule", ["gradient", "adam"])
def test_an_update_follows_the_advantages_where_it_saw_the_batch(lab: Lab, rule: Any) -> None:
    made = pair(lab, SETTING)
    moved = move(lab.trainer(fresh=True), displacement(lab, SETTING, rule), 10.0)
    step = lab.step(made.sampled, lab.score(moved, made.sampled))
    assert step.advantages is not None
    correlation = np.corrcoef(difference(step), step.advantages)[0, 1]
    assert (correlation > 0.2) == (rule == "gradient")


def test_versions_say_which_sequences_lag(lab: Lab) -> None:
    step = inject(the("policy_staleness", "a"), lab, 1.0)
    version = step.extras.behavior_version
    assert version is not None and set(version.tolist()) == {19, 20}
    per_sequence = np.maximum.reduceat(np.abs(difference(step)), step.cu_seqlens[:-1])
    assert (per_sequence[version == 20] < ROUNDING).all()
    assert (per_sequence[version == 19] > 100 * ROUNDING).all()


def test_quantised_weights_lie_on_few_levels(lab: Lab) -> None:
    before = lab.trainer().model.layers[0].mlp.up_proj.weight
    for form, levels, group in (("int8", 255, 128), ("int4", 15, 32)):
        after = weights.quantise(lab.trainer(fresh=True), form).model.layers[0].mlp.up_proj.weight
        groups = after.reshape(-1, group)
        assert max(len(row.unique()) for row in groups[:16]) <= levels
        step = before.reshape(-1, group).abs().amax(-1, keepdim=True) / ((levels - 1) / 2)
        assert bool(((groups - before.reshape(-1, group)).abs() <= 0.501 * step).all())
    normal = weights.quantise_to_normal_levels(lab.trainer(fresh=True), 4)
    groups = normal.model.layers[0].mlp.up_proj.weight.reshape(-1, 64)
    assert max(len(row.unique()) for row in groups[:16]) <= 16


def test_e4m3_has_three_bits_behind_the_point_and_clips() -> None:
    values = torch.tensor([1.0, 1.06, 1.07, 448.0, 500.0, -1000.0])
    assert quantised_e4m3(values, 1.0).tolist() == [1.0, 1.0, 1.125, 448.0, 448.0, -448.0]
    assert quantised_e4m3(torch.tensor([2.12]), 2.0).tolist() == [2.0]


def test_a_merged_adapter_equals_the_one_beside_the_weights(lab: Lab) -> None:
    adapter = adapter_of(displacement(lab, SETTING, "adam"))
    assert all(factors.down.shape[0] == RANK for factors in adapter.values())
    sampled = pair(lab, SETTING).sampled
    merged = lab.score(apply_adapter(lab.trainer(fresh=True), adapter, 50.0), sampled).logprobs
    beside = lab.score(attach_adapter(lab.trainer(fresh=True), adapter, 50.0), sampled).logprobs
    assert sigma(pair(lab, SETTING).scored.logprobs, merged) > 0.05
    assert np.abs(merged - beside).max() < ROUNDING


# Function


def test_equal_rope_frequencies_change_nothing(lab: Lab) -> None:
    """The base that the lab's model has, set by the same code."""
    sampled = pair(lab, SETTING).sampled
    same = model.other_rope_base(lab.trainer(fresh=True), 1e-9, 0)
    assert np.abs(lab.score(same, sampled).logprobs - pair(lab, SETTING).scored.logprobs).max() < (
        ROUNDING
    )


def test_a_stretched_rope_moves_later_tokens_more(lab: Lab) -> None:
    """Relative positions matter, so that a token right behind another sees little of it."""
    step = inject(the("rope_config", "a"), lab, 0.3)
    assert step.extras.position_ids is not None
    assert np.abs(difference(step)).max() > 0.01


def test_a_head_in_bf16_rounds_to_its_grid(lab: Lab) -> None:
    damaged = model.logits_in_bf16(lab.trainer(fresh=True))
    logits = damaged(torch.tensor([[1, 2, 3]])).logits
    assert bool((logits == logits.bfloat16().float()).all())


# Caches


@pytest.mark.parametrize("way", ["a", "b"])
def test_a_tile_leaves_everything_before_one_position_clean(lab: Lab, way: str) -> None:
    step = inject(the("fp8_kv_tile", way), lab, 0.5)
    position = step.extras.position_ids
    assert position is not None
    wrong = np.abs(difference(step)) > ROUNDING
    onset = int(position[wrong].min())
    # The last key before the onset is the tile's first: the tile begins at a multiple of a block.
    assert (onset - 1) % cache.BLOCK in (0, 1)
    assert wrong[position >= onset].mean() > 0.95


def test_a_stale_prefix_moves_the_groups_that_hit_it(lab: Lab) -> None:
    injection = the("stale_prefix_cache", "a")
    steps = [inject(injection, lab, 1.0, seed) for seed in range(6)]
    told = [step for step in steps if step.extras.cached_tokens is not None]
    assert 0 < len(told) < len(steps)  # some push the label, some do not
    cached = told[0].extras.cached_tokens
    assert cached is not None
    worst = np.maximum.reduceat(np.abs(difference(told[0])), told[0].cu_seqlens[:-1])
    assert (worst[cached == 0] < ROUNDING).all()
    assert (worst[cached > 0] > ROUNDING).all()


# Batches


def test_the_first_document_of_a_pack_is_clean(lab: Lab) -> None:
    for cause in ("packed_attention_leak", "packed_state_leak"):
        for way in "ab":
            step = inject(the(cause, way), lab, 0.0)  # packs of two
            worst = np.maximum.reduceat(np.abs(difference(step)), step.cu_seqlens[:-1])
            assert (worst[0::2] < ROUNDING).all()
            assert (worst[1::2] > ROUNDING).all()


def test_edges_of_chunks_alone_are_wrong(lab: Lab) -> None:
    step = inject(the("chunked_prompt_logprobs", "a"), lab, 1.0)
    assert step.extras.position_ids is not None
    wrong = np.abs(difference(step)) > ROUNDING
    at_edge = step.extras.position_ids % batch.LEAST_CHUNK == 0
    # A response's first token has no row of its own before it.
    first = np.zeros_like(at_edge)
    first[step.cu_seqlens[:-1]] = True
    assert not wrong[~at_edge].any()
    assert wrong[at_edge & ~first].all()
    packed = np.abs(difference(inject(the("chunked_prompt_logprobs", "b"), lab, 1.0))) > ROUNDING
    # Where a chunk ends with a response, its token keeps its own row.
    edge = np.arange(packed.size) % batch.LEAST_CHUNK == batch.LEAST_CHUNK - 1
    assert not packed[~edge].any() and packed[edge].mean() > 0.5


# Shares


@pytest.mark.parametrize("way", ["a", "b"])
def test_one_rank_alone_is_wrong(lab: Lab, way: str) -> None:
    for seed in range(6):
        step = inject(the("rank_local_corruption", way), lab, 1.0, seed)
        if step.extras.rank is None:
            continue
        worst = np.maximum.reduceat(np.abs(difference(step)), step.cu_seqlens[:-1])
        assert len(set(step.extras.rank[worst > ROUNDING].tolist())) == 1
        return
    pytest.fail("no draw of six pushed the rank")


@pytest.mark.parametrize("way", ["a", "b"])
def test_one_replica_alone_is_wrong(lab: Lab, way: str) -> None:
    for seed in range(6):
        step = inject(the("replica_differs", way), lab, 1.0, seed)
        if step.extras.replica is None:
            continue
        worst = np.maximum.reduceat(np.abs(difference(step)), step.cu_seqlens[:-1])
        assert len(set(step.extras.replica[worst > ROUNDING].tolist())) == 1
        return
    pytest.fail("no draw of six pushed the replica")


def test_a_draft_model_speaks_for_the_last_tokens_alone(lab: Lab) -> None:
    step = inject(the("spec_decode_logprobs", "a"), lab, 1.0)
    wrong = np.abs(difference(step)) > ROUNDING
    for row in range(step.sequences):
        own = wrong[step.sequence(row)]
        assert not own[: -shares.MOST_DRAFTED].any() and own[-shares.MOST_DRAFTED :].any()


def test_a_window_of_drafts_has_one_wrong_token(lab: Lab) -> None:
    step = inject(the("spec_decode_logprobs", "b"), lab, 1.0)
    for row in range(step.sequences):
        wrong = np.flatnonzero(np.abs(difference(step))[step.sequence(row)] > ROUNDING)
        assert set((wrong % 3).tolist()) == {2}


def test_a_fault_is_the_same_for_the_same_seed(tiny_llama: Path) -> None:
    small = replace(SETTING, model="tiny-llama")
    for injection in (the("dropout_active", "a"), the("replica_differs", "a")):
        lab = Lab(tiny_llama, "fp32", "fp32", 0)
        steps = [injection.inject(lab, 0.7, np.random.default_rng(5), small) for _ in range(2)]
        for name, tensor in steps[0].tensors().items():
            assert np.array_equal(tensor, steps[1].tensors()[name]), name
