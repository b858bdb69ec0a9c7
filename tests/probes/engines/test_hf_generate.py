"""The hf engine against a plain decoding loop, and the promises of its seeded sampler."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.hf_generate import HfGenerate
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import discard

MakeTask = Callable[..., RolloutTask]

#: A cached decode and a full forward reduce in another order (float32: at most 6e-5 measured
#: over a whole vocabulary).
FP32_REORDERING = 2e-4


def full_forward_logprobs(model_path: Path, task: RolloutTask, token_ids: np.ndarray) -> np.ndarray:
    """Log-probabilities of the sampled tokens by one uncached forward pass per sequence."""
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    found = []
    for index, response in enumerate(token_ids.reshape(len(task.prompts), -1)):
        prompt = task.prompts.ids(index)
        ids = torch.tensor([prompt + response.tolist()])
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        rows = torch.log_softmax(logits / (task.sampling.temperature or 1.0), dim=-1)
        found.append(rows[torch.arange(response.size), torch.tensor(response)].numpy())
    return np.concatenate(found)


def test_logprobs_are_those_of_a_plain_forward(make_task: MakeTask, tiny_llama: Path) -> None:
    task = make_task("hf")
    trace = HfGenerate(task).generate(discard)
    expected = full_forward_logprobs(tiny_llama, task, trace.token_ids)
    np.testing.assert_allclose(trace.logprobs, expected, atol=FP32_REORDERING)


def test_processed_logprobs_are_scaled_by_the_temperature(
    make_task: MakeTask, tiny_llama: Path
) -> None:
    task = make_task("hf", temperature=0.5, logprobs_mode="processed_logprobs")
    trace = HfGenerate(task).generate(discard)
    expected = full_forward_logprobs(tiny_llama, task, trace.token_ids)
    np.testing.assert_allclose(trace.logprobs, expected, atol=FP32_REORDERING)


def test_a_request_draws_the_same_tokens_in_any_batch(make_task: MakeTask) -> None:
    together = HfGenerate(make_task("hf")).generate(discard)
    alone = HfGenerate(make_task("hf", batch_size=1)).generate(discard)
    assert alone.token_ids.tolist() == together.token_ids.tolist()


def test_a_rerun_is_bitwise_equal_and_another_seed_is_not(make_task: MakeTask) -> None:
    first = HfGenerate(make_task("hf", "bf16")).generate(discard)
    again = HfGenerate(make_task("hf", "bf16")).generate(discard)
    other = HfGenerate(make_task("hf", "bf16", seed=99)).generate(discard)
    assert first.logprobs.tobytes() == again.logprobs.tobytes()
    assert first.token_ids.tolist() == again.token_ids.tolist()
    assert first.token_ids.tolist() != other.token_ids.tolist()


def test_greedy_takes_the_most_likely_token(make_task: MakeTask, tiny_llama: Path) -> None:
    task = make_task("hf", temperature=0.0, max_tokens=1)
    trace = HfGenerate(task).generate(discard)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.no_grad():
        best = [
            int(model(torch.tensor([task.prompts.ids(i)])).logits[0, -1].argmax())
            for i in range(len(task.prompts))
        ]
    assert trace.token_ids.tolist() == best


def test_top_k_one_leaves_a_single_token_with_probability_one(make_task: MakeTask) -> None:
    task = make_task("hf", top_k=1, logprobs_mode="processed_logprobs")
    assert not HfGenerate(task).generate(discard).logprobs.any()


def test_draws_follow_the_distribution(make_task: MakeTask) -> None:
    """Pearson's chi-squared of 3,000 draws against the softmax; the bound is its 99.99 % point."""
    from driftscope_probes.engines.hf_generate import _SeededSampler

    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    task = make_task("hf")
    sampler = _SeededSampler(task, range(1), "cpu")
    draws = 3000
    counts = torch.zeros(4)
    for _ in range(draws):
        counts += sampler(torch.zeros(1, 1, dtype=torch.long), logits).isfinite()[0]
    expected = torch.softmax(logits[0], -1) * draws
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert statistic < 21.1  # 3 degrees of freedom
    biased = torch.tensor([0.25, 0.25, 0.25, 0.25]) * draws
    assert float(((counts - biased) ** 2 / biased).sum()) > 21.1  # the check can fail


def test_a_setting_that_only_vllm_has_is_refused(make_task: MakeTask) -> None:
    with pytest.raises(RequestError, match="prefix_caching"):
        HfGenerate(make_task("hf", prefix_caching=True))
