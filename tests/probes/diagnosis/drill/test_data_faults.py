"""Faults of meaning, alignment, records and context: each changes what it says, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.faults import (
    alignment,
    conversation,
    healthy,
    records,
    semantics,
)
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.diagnosis.drill.pool import logits_of, pair, rollout
from driftscope_probes.diagnosis.drill.transcript import turns_of
from driftscope_probes.diagnosis.drill.vocabulary import vocabulary
from driftscope_probes.push.pushed_step import PushedStep

#: Both sides in float32: what rounding leaves between them is far below any fault.
SETTING = Setting("tiny", "tiny-llama", "fp32", "fp32", sequences=8, max_tokens=12)
ROUNDING = 1e-4  # nats
DATA_FAULTS = [
    injection
    for part in (semantics, alignment, records, conversation)
    for injection in part.INJECTIONS
]
Inject = Callable[[Lab, float, np.random.Generator, Setting], PushedStep]


@pytest.fixture(scope="module")
def lab(tiny_llama: Path) -> Lab:
    return Lab(tiny_llama, "fp32", "fp32", 0)


def injected(inject: Inject, lab: Lab, severity: float = 0.5, seed: int = 0) -> PushedStep:
    return inject(lab, severity, np.random.default_rng(seed), SETTING)


def sound(lab: Lab) -> PushedStep:
    untouched = pair(lab, SETTING)
    return lab.step(untouched.sampled, untouched.scored)


def rows_of(step: PushedStep, values: NDArray[Any]) -> list[NDArray[Any]]:
    return np.split(values, step.cu_seqlens[1:-1])


def ids_of(step: PushedStep) -> NDArray[np.integer[Any]]:
    assert step.extras.token_ids is not None
    return step.extras.token_ids


def largest(step: PushedStep) -> float:
    return float(np.abs(step.trainer - step.rollout)[step.mask].max())


def test_a_sound_pair_is_equal_up_to_rounding(lab: Lab) -> None:
    assert 0.0 < largest(sound(lab)) < ROUNDING


@pytest.mark.parametrize("fault", DATA_FAULTS, ids=lambda fault: f"{fault.cause}-{fault.way}")
def test_every_fault_shows_and_repeats(lab: Lab, fault: Injection) -> None:
    first, again = (injected(fault.inject, lab, 0.8) for _ in range(2))
    for name, tensor in first.tensors().items():
        assert np.array_equal(tensor, again.tensors()[name], equal_nan=True), name
    with np.errstate(invalid="ignore"):
        away = ~(np.abs(first.trainer - first.rollout) < ROUNDING)
    assert (away & first.mask).any()


@pytest.mark.parametrize("severity", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_untouched_pairs_are_equal_up_to_rounding(lab: Lab, severity: float) -> None:
    assert largest(injected(healthy.untouched, lab, severity)) < ROUNDING


def test_published_levels_are_met(lab: Lab) -> None:
    large = replace(SETTING, sequences=128, max_tokens=64)
    for index in (0, 5):
        severity = (index + 0.5) / len(healthy.LEVELS)
        step = healthy.published(lab, severity, np.random.default_rng(1), large)
        level = healthy.LEVELS[index]
        assert step.metadata["model"] == level.model
        assert np.std(step.trainer - step.rollout) == pytest.approx(level.std, rel=0.25)
        # Drawn from what the engine reports: the mean ratio is 1.
        ratio = np.exp(step.trainer.astype(np.float64) - step.rollout)
        assert abs(ratio.mean() - 1.0) < 5.0 * ratio.std() / ratio.size**0.5


# Meaning


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_temperature_on_one_side(lab: Lab, seed: int) -> None:
    rng = np.random.default_rng(seed)
    divisor = semantics.temperature(0.5, rng)
    both = pair(lab, replace(SETTING, temperature=divisor, processed=True))
    raw = rollout(lab, replace(SETTING, temperature=divisor, processed=False))
    one = injected(semantics.raw_against_divided, lab, seed=seed)
    other = injected(semantics.processed_against_plain, lab, seed=seed)
    assert np.array_equal(one.rollout, np.concatenate(raw.logprobs))
    assert np.array_equal(one.trainer, both.scored.logprobs)
    assert np.array_equal(other.rollout, np.concatenate(both.sampled.logprobs))
    assert np.abs(other.trainer - one.rollout).max() < ROUNDING  # both raw
    told = {
        injected(semantics.raw_against_divided, lab, seed=s).metadata["temperature"] != "1.0"
        for s in range(6)
    }
    assert told == {True, False}


def test_scaling_after_the_softmax_is_a_line_through_the_origin(lab: Lab) -> None:
    divisor = semantics.temperature(0.5, np.random.default_rng(0))
    one = injected(semantics.scaled_rollout, lab)
    assert np.abs(one.rollout * divisor - one.trainer).max() < ROUNDING
    other = injected(semantics.scaled_trainer, lab)
    assert np.abs(other.trainer * divisor - other.rollout).max() < ROUNDING


def test_truncation_leaves_the_log_of_the_mass_kept(lab: Lab) -> None:
    for seed in range(4):
        step = injected(semantics.truncation, lab, seed=seed)
        sampled = replace(
            pair(lab, SETTING).sampled,
            responses=tuple(tuple(ids.tolist()) for ids in rows_of(step, ids_of(step))),
        )
        logits = logits_of(lab, lab.trainer(), sampled, SETTING.microbatch)
        classes = np.concatenate([row.softmax(-1).numpy() for row in logits])
        kept = _kept(classes, step)
        assert np.abs(step.trainer - step.rollout - np.log(kept)).max() < 1e-3
        assert kept.min() < 0.99


def _kept(classes: NDArray[np.float32], step: PushedStep) -> NDArray[np.float64]:
    """Mass of what the metadata say is kept, by sorting; [tokens]."""
    order = -np.sort(-classes.astype(np.float64), axis=-1)
    keep = np.ones(order.shape, np.bool_)
    keep &= order.cumsum(-1) - order < float(step.metadata["top_p"])
    if top_k := int(step.metadata["top_k"]):
        keep &= np.arange(order.shape[1]) < top_k
    keep &= order >= float(step.metadata.get("min_p", 0)) * order[:, :1]
    kept: NDArray[np.float64] = np.where(keep, order, 0.0).sum(-1)
    return kept


def test_defaults_of_the_model_are_not_told(lab: Lab) -> None:
    step = injected(semantics.generation_config_default, lab)
    assert (step.metadata["top_p"], step.metadata["top_k"]) == ("1.0", "0")
    assert (step.trainer - step.rollout).max() < ROUNDING
    assert (step.trainer - step.rollout).min() < -0.01


# Alignment


def test_a_pack_slides_within_one_rank(lab: Lab) -> None:
    healthy_step, step = sound(lab), injected(alignment.shifted_pack, lab, 0.3)
    moved = np.flatnonzero(step.trainer != healthy_step.trainer)
    begin, end = moved[0], moved[-1] + 1
    assert {begin, end} <= set(step.cu_seqlens.tolist())
    own = healthy_step.trainer[begin:end]
    assert any(np.array_equal(step.trainer[begin:end], np.roll(own, lag)) for lag in (-1, 1))
    assert np.array_equal(step.rollout, healthy_step.rollout)


def test_rows_slide_one_by_one(lab: Lab) -> None:
    healthy_step, step = sound(lab), injected(alignment.shifted_rows, lab, 0.3)
    pairs = zip(rows_of(step, step.rollout), rows_of(step, healthy_step.rollout), strict=True)
    moved = [(row, own) for row, own in pairs if not np.array_equal(row, own)]
    assert 0 < len(moved) < 8
    for row, own in moved:
        assert np.array_equal(row[:-1], own[1:]) or np.array_equal(row[1:], own[:-1])
    assert np.array_equal(step.trainer, healthy_step.trainer)


def test_labels_that_were_not_shifted_are_looked_up_in_a_neighbours_logits(lab: Lab) -> None:
    step = injected(alignment.missed_labels, lab, 1.0)
    logits = logits_of(lab, lab.trainer(), pair(lab, SETTING).sampled, SETTING.microbatch)
    ids = rows_of(step, ids_of(step))
    for row, own, labels in zip(rows_of(step, step.trainer), logits, ids, strict=True):
        classes = own.log_softmax(-1).numpy()
        late = classes[np.arange(len(labels) - 1), labels[1:]]
        early = classes[np.arange(1, len(labels)), labels[:-1]]
        assert np.allclose(row[1:], late, atol=ROUNDING) or np.allclose(
            row[:-1], early, atol=ROUNDING
        )


def test_swapped_rows_are_anothers_values(lab: Lab) -> None:
    healthy_step, step = sound(lab), injected(alignment.swapped_rows, lab, 1.0)
    own = rows_of(step, healthy_step.trainer)
    masks = rows_of(step, step.mask)
    for index, row in enumerate(rows_of(step, step.trainer)):
        taken = int(masks[index].sum())
        others = [other for i, other in enumerate(own) if i != index]
        assert any(np.array_equal(row[:taken], other[:taken]) for other in others)
    assert np.array_equal(step.rollout, healthy_step.rollout)


def test_another_prompt_changes_its_rows_from_the_first_token_on(lab: Lab) -> None:
    healthy_step, step = sound(lab), injected(alignment.other_prompts, lab, 0.4)
    away = [
        np.abs(row - own) > ROUNDING
        for row, own in zip(
            rows_of(step, step.trainer), rows_of(step, healthy_step.trainer), strict=True
        )
    ]
    moved = [row for row in away if row.any()]
    assert 0 < len(moved) < 8
    assert all(row[0] for row in moved)


@pytest.mark.parametrize("seed", range(4))
def test_other_ids_stand_for_the_same_text(lab: Lab, seed: int) -> None:
    words = vocabulary(lab.model_folder)
    step = injected(alignment.split_otherwise, lab, 1.0, seed)
    trained = rows_of(step, ids_of(step))
    sampled = [np.array(ids) for ids in pair(lab, SETTING).sampled.responses]
    changed = [int((one != two).sum()) for one, two in zip(trained, sampled, strict=True)]
    assert sum(changed) > 0 and all(count % 2 == 0 for count in changed)
    for one, two in zip(trained, sampled, strict=True):
        assert words.text(one.tolist()) == words.text(two.tolist())
    if step.rollout_token_ids is not None:
        assert np.array_equal(step.rollout_token_ids, np.concatenate(sampled))
    assert np.array_equal(step.rollout, sound(lab).rollout)


def test_ids_are_told_in_some_steps_and_not_in_others(lab: Lab) -> None:
    steps = [injected(alignment.encoded_again, lab, 1.0, seed) for seed in range(6)]
    assert {step.rollout_token_ids is None for step in steps} == {True, False}
    for step in steps:
        if step.rollout_token_ids is not None:
            assert (step.rollout_token_ids != ids_of(step)).any()


@pytest.mark.parametrize("way", ["a", "b"])
def test_only_last_labels_are_wrong(lab: Lab, way: str) -> None:
    (fault,) = (
        item
        for item in alignment.INJECTIONS
        if item.cause == "last_token_label" and item.way == way
    )
    healthy_step, step = sound(lab), injected(fault.inject, lab, 1.0)
    away = np.flatnonzero(np.abs(step.trainer - healthy_step.trainer) > ROUNDING)
    last = step.cu_seqlens[1:] - 1
    assert away.size >= 6 and set(away) <= set(last)
    assert np.array_equal(ids_of(step), ids_of(healthy_step))


# Records


def test_appended_ends_carry_zero(lab: Lab) -> None:
    step = injected(records.appended, lab, 1.0)
    end = vocabulary(lab.model_folder).end
    sampled = pair(lab, SETTING).sampled
    for row, ids, own in zip(
        rows_of(step, step.rollout),
        rows_of(step, ids_of(step)),
        sampled.logprobs,
        strict=True,
    ):
        assert np.array_equal(row[: own.size], own)
        assert row[own.size :].tolist() == [0.0] * records.MOST_APPENDED
        assert ids[own.size :].tolist() == [end] * records.MOST_APPENDED
    assert (step.trainer[step.rollout == 0.0] < -0.1).all()


@pytest.mark.parametrize(
    "inject",
    [records.constant_observations, records.replaced_continuation, records.likeliest_of_prompt],
)
def test_only_observations_are_let_in(lab: Lab, inject: Inject) -> None:
    steps = [injected(inject, lab, 0.4, seed) for seed in range(3)]
    step = next(step for step in steps if step.extras.turn_ids is not None)
    assert step.extras.turn_ids is not None
    observation = step.extras.turn_ids == 1
    away = np.abs(step.trainer - step.rollout) > ROUNDING
    assert not (away & step.mask & ~observation).any()
    assert (away & step.mask & observation).any()
    assert (~step.mask & observation).any() and step.mask[~observation].all()
    (first, _) = turns_of(lab, SETTING, 2)
    whole = [int(row.sum()) for row in rows_of(step, observation)]
    assert whole == [len(ids) for ids in first.observations]


def test_sentinels_stand_at_the_tokens_that_were_hit(lab: Lab) -> None:
    healthy_step, step = sound(lab), injected(records.sentinels, lab)
    hit = step.rollout != healthy_step.rollout
    assert 0.2 < hit.mean() < 0.3  # half of the way to HIT's upper end
    assert set(step.rollout[hit].tolist()) <= set(records.SENTINELS)
    assert len(set(step.rollout[hit].tolist())) == 1
    assert np.array_equal(step.trainer, healthy_step.trainer)


def test_rows_break_from_some_token_on(lab: Lab) -> None:
    for seed in range(3):
        step = injected(records.broken_rows, lab, 0.5, seed)
        broken = [np.isnan(row) for row in rows_of(step, step.trainer)]
        assert 0 < sum(row.any() for row in broken) < 8
        for row in broken:
            assert np.array_equal(row, np.sort(row))  # once broken, until the end


@pytest.mark.parametrize("inject", [records.rounded_target, records.rounded_sum])
def test_a_rounded_logit_gives_values_above_zero(lab: Lab, inject: Inject) -> None:
    healthy_step, step = sound(lab), injected(inject, lab, 1.0)
    difference = np.abs(step.trainer - healthy_step.trainer)
    logits = logits_of(lab, lab.trainer(), pair(lab, SETTING).sampled, SETTING.microbatch)
    most = max(float(row.abs().max()) for row in logits) + np.log(logits[0].shape[1])
    assert ROUNDING < difference.max() <= most * 2.0**-8  # half a step of eight bits


def test_stored_in_bf16_is_on_its_grid(lab: Lab) -> None:
    one = injected(records.rollout_stored_in_bf16, lab)
    assert not (one.rollout.view(np.uint32) & 0xFFFF).any()
    assert (one.trainer.view(np.uint32) & 0xFFFF).any()
    other = injected(records.trainer_stored_in_bf16, lab)
    assert not (other.trainer.view(np.uint32) & 0xFFFF).any()
    assert np.array_equal(other.rollout, sound(lab).rollout)


# Context


@pytest.mark.parametrize("inject", [conversation.other_system_prompt, conversation.other_template])
@pytest.mark.parametrize("severity", [0.1, 0.5, 0.9])
def test_another_template_moves_every_row_from_its_start(
    lab: Lab, inject: Inject, severity: float
) -> None:
    step = injected(inject, lab, severity)
    away = np.abs(step.trainer - step.rollout) > ROUNDING
    assert all(row[:3].any() for row in rows_of(step, away))
    assert np.array_equal(step.rollout, sound(lab).rollout)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_thought_is_missed_from_the_second_turn_on(lab: Lab, seed: int) -> None:
    step = injected(conversation.without_thinking, lab, 0.8, seed)
    turns = turns_of(lab, SETTING, 2)
    away = (np.abs(step.trainer - step.rollout) > ROUNDING) & step.mask
    for index, row in enumerate(rows_of(step, away)):
        first = len(turns[0].sampled.responses[index])
        assert not row[:first].any()
        assert row[first:].any()


def test_dropped_answers_change_some_rows_and_no_first_turn(lab: Lab) -> None:
    step = injected(conversation.history_dropped, lab, 0.3)
    turns = turns_of(lab, SETTING, 3)
    away = rows_of(step, (np.abs(step.trainer - step.rollout) > ROUNDING) & step.mask)
    assert 0 < sum(bool(row.any()) for row in away) < 8
    for index, row in enumerate(away):
        assert not row[: len(turns[0].sampled.responses[index])].any()


def test_positions_count_tokens_that_are_not_pushed(lab: Lab) -> None:
    steps = [injected(conversation.without_thinking, lab, 0.5, seed) for seed in range(6)]
    left_out = next(step for step in steps if step.mask.all())
    turns = turns_of(lab, SETTING, 2)
    assert left_out.extras.position_ids is not None
    positions = rows_of(left_out, left_out.extras.position_ids)
    for index, row in enumerate(positions):
        first = turns[0].sampled
        begin, length = len(first.prompts[index]), len(first.responses[index])
        assert row[:length].tolist() == list(range(begin, begin + length))
        assert row[length] == begin + length + len(turns[0].observations[index])
