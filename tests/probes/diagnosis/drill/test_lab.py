"""The lab's two sides against each other and against plain transformers calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from driftscope_probes.diagnosis.drill.case import Setting
from driftscope_probes.diagnosis.drill.damage import sample, sigma
from driftscope_probes.diagnosis.drill.lab import (
    GROUP,
    Decoding,
    Lab,
    Sampling,
    token_scores,
    truncated,
)
from driftscope_probes.diagnosis.drill.pool import rollout
from driftscope_probes.errors import RequestError

SETTING = Setting("tiny", "tiny-llama", "fp32", "fp32", sequences=8, max_tokens=12, context=40)
#: Order of summation in float32 over three layers; measured up to 5e-6.
ROUNDING = 2e-5


@pytest.fixture(scope="module")
def lab(tiny_llama: Path) -> Lab:
    return Lab(tiny_llama, "fp32", "fp32", 0)


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("microbatch", [1, 8])
def test_the_decode_loop_says_what_the_full_forward_says(
    lab: Lab, batch: int | None, microbatch: int
) -> None:
    sampled = rollout(lab, replace(SETTING, batch=batch))
    scored = lab.score(lab.trainer(), sampled, microbatch=microbatch)
    assert np.abs(np.concatenate(sampled.logprobs) - scored.logprobs).max() < ROUNDING


def test_a_mixture_decodes_as_its_full_forward_too(tiny_moe: Path) -> None:
    lab = Lab(tiny_moe, "fp32", "fp32", 0)
    sampled = rollout(lab, SETTING)
    scored = lab.score(lab.trainer(), sampled)
    assert np.abs(np.concatenate(sampled.logprobs) - scored.logprobs).max() < ROUNDING


def test_scores_and_entropy_are_those_of_a_plain_forward_without_padding(lab: Lab) -> None:
    sampled = rollout(lab, SETTING)
    scored = lab.score(lab.trainer(), sampled, temperature=1.3)
    place = 0
    for prompt, response in zip(sampled.prompts, sampled.responses, strict=True):
        with torch.inference_mode():
            logits = lab.trainer()(torch.tensor([prompt + response])).logits[0]
        for index, token in enumerate(response):
            classes = torch.softmax(logits[len(prompt) + index - 1].double() / 1.3, -1)
            assert scored.logprobs[place] == pytest.approx(
                float(classes[token].log()), abs=ROUNDING
            )
            entropy = float(-(classes * classes.log()).sum())
            assert scored.entropy[place] == pytest.approx(entropy, abs=ROUNDING)
            place += 1
    assert place == scored.logprobs.size


def test_processed_logprobs_are_those_of_the_distribution_that_was_drawn_from(lab: Lab) -> None:
    sampling = Sampling(12, temperature=0.7, top_p=0.8, top_k=40, min_p=0.01)
    prompts = lab.prompts(8)
    raw = lab.roll_out(lab.engine(), prompts, sampling, processed=False)
    cut = lab.roll_out(lab.engine(), prompts, sampling, processed=True)
    assert raw.responses == cut.responses
    # Raw values are those of the whole distribution at temperature 1.
    scored = lab.score(lab.trainer(), raw)
    assert np.abs(np.concatenate(raw.logprobs) - scored.logprobs).max() < ROUNDING
    warm = lab.score(lab.trainer(), cut, temperature=0.7).logprobs
    kept_mass = np.exp(warm - np.concatenate(cut.logprobs))
    assert (kept_mass < 1.0 + 1e-4).all()  # renormalised over fewer tokens: never less likely
    assert kept_mass.min() > 0.5  # top-p keeps 0.8, top-k and min-p take little more


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1, top_k=2), [0, 1]),
        (Sampling(1, top_p=0.6), [0, 1]),
        (Sampling(1, top_p=0.5), [0]),
        (Sampling(1, min_p=0.3), [0, 1, 2]),
        (Sampling(1, temperature=0.1, min_p=0.1), [0]),
    ],
)
def test_truncation_keeps_the_tokens_that_the_definition_keeps(
    sampling: Sampling, expected: list[int]
) -> None:
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    assert truncated(logits, sampling)[0].isfinite().nonzero()[:, 0].tolist() == expected


def test_sampling_needs_a_temperature(lab: Lab) -> None:
    with pytest.raises(RequestError, match="temperature is 0.0"):
        lab.roll_out(lab.engine(), lab.prompts(4), Sampling(2, temperature=0.0), processed=False)


def test_prompts_come_in_groups_and_every_other_one_with_a_context(lab: Lab) -> None:
    prompts = lab.prompts(16, seed=3, context=100)
    groups = [prompts[start : start + GROUP] for start in range(0, 16, GROUP)]
    assert all(len(set(group)) == 1 for group in groups)
    lengths = [len(group[0]) for group in groups]
    assert min(lengths[0::2]) >= 100 > max(lengths[1::2])


def test_a_damaged_copy_leaves_the_lab_whole(lab: Lab) -> None:
    damaged = lab.engine(fresh=True)
    with torch.no_grad():
        damaged.lm_head.weight.zero_()
    assert float(lab.engine().lm_head.weight.abs().sum()) > 0.0


def test_a_step_holds_what_a_trainer_pushes(lab: Lab) -> None:
    sampled = rollout(lab, SETTING)
    scored = lab.score(lab.trainer(), sampled)
    step = lab.step(sampled, scored, {"framework": "x"}, rank=np.arange(8, dtype=np.int32))
    extras = step.extras
    assert extras.token_ids is not None and extras.position_ids is not None
    assert extras.prompt_lengths is not None and extras.rank is not None
    for row in range(8):
        own = step.sequence(row)
        assert extras.token_ids[own].tolist() == list(sampled.responses[row])
        first = len(sampled.prompts[row])
        assert extras.position_ids[own][0] == first == extras.prompt_lengths[row]
        assert step.advantages is not None
        assert len(set(step.advantages[own].tolist())) == 1
    assert step.metadata["rollout_dtype"] == "fp32"
    assert step.metadata["logprobs_mode"] == "raw_logprobs"
    assert step.metadata["framework"] == "x"


def test_advantages_are_normalised_within_each_group(lab: Lab) -> None:
    groups = lab.advantages(16).reshape(-1, GROUP)
    assert np.abs(groups.mean(1)).max() < 1e-9
    assert groups.std(1) == pytest.approx(np.ones(len(groups)), abs=1e-3)


# What may go wrong inside the decode loop, each switched on with nothing else wrong


def _healthy_sigma(lab: Lab, **faults: Any) -> float:
    sampled = sample(lab, SETTING, lab.engine(), decoding=Decoding(**faults))
    return sigma(np.concatenate(sampled.logprobs), lab.score(lab.trainer(), sampled).logprobs)


def test_a_prefix_from_the_same_weights_changes_nothing(lab: Lab) -> None:
    lengths = np.array([len(prompt) for prompt in lab.prompts(8, 0, SETTING.context)])
    for cached in (lengths - 1, lengths // 16 * 16, np.where(np.arange(8) % 2 == 0, 5, 0)):
        assert _healthy_sigma(lab, cache_model=lab.engine(), cached_tokens=cached) < ROUNDING


def test_a_prefix_from_other_weights_changes_the_rows_that_hit_it_alone(lab: Lab) -> None:
    other = lab.engine(fresh=True)
    with torch.no_grad():
        other.model.layers[0].self_attn.v_proj.weight.mul_(2.0)
    cached = np.where(np.arange(8) < 4, 8, 0)
    decoding = Decoding(cache_model=other, cached_tokens=cached)
    sampled = sample(lab, SETTING, lab.engine(), decoding=decoding)
    scored = lab.score(lab.trainer(), sampled).logprobs
    lengths = [len(response) for response in sampled.responses]
    difference = np.abs(scored - np.concatenate(sampled.logprobs))
    hit = np.repeat(cached > 0, lengths)
    assert difference[hit].max() > 0.01
    assert difference[~hit].max() < ROUNDING


def test_weights_swapped_for_the_same_ones_change_nothing(lab: Lab) -> None:
    assert _healthy_sigma(lab, swap_at=3, later_model=lab.engine(fresh=True)) < ROUNDING


def test_attended_padding_leaves_the_longest_prompts_clean(lab: Lab) -> None:
    sampled = sample(lab, SETTING, lab.engine(), decoding=Decoding(attend_padding=True))
    scored = lab.score(lab.trainer(), sampled).logprobs
    lengths = np.array([len(prompt) for prompt in sampled.prompts])
    difference = np.abs(scored - np.concatenate(sampled.logprobs))
    longest = np.repeat(lengths == lengths.max(), [len(ids) for ids in sampled.responses])
    assert difference[longest].max() < ROUNDING
    assert difference[~longest].max() > 0.01


def test_a_cache_fault_sees_each_column_once(lab: Lab) -> None:
    seen: list[int] = []
    width = max(len(prompt) for prompt in lab.prompts(8, 0, SETTING.context))

    def note(cache: Any, padding: torch.Tensor, columns: range) -> None:
        seen.extend(columns)
        assert cache.layers[0].keys.shape[2] == columns.stop
        assert int(padding.min()) == 0

    sampled = sample(lab, SETTING, lab.engine(), decoding=Decoding(on_cache=note))
    longest = max(len(response) for response in sampled.responses)
    assert seen == list(range(width + longest - 1))


def test_token_scores_are_in_float32_from_half_precision_logits() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    values, _ = token_scores(logits, (2,))
    expected = 3.0 - np.log(np.exp([1.0, 2.0, 3.0]).sum())
    assert values.dtype == torch.float32
    assert float(values[0]) == pytest.approx(expected, abs=1e-6)
