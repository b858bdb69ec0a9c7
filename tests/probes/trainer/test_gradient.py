"""Against plain autograd through the model's own logits, all sequences in one graph."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from driftscope_probes.dtypes import BASE_MODES, parse_mode
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace
from driftscope_probes.trainer.forward import score_rollout
from driftscope_probes.trainer.gradient import (
    GRAD_SCALER_INIT,
    GradientReport,
    against_fp32,
    balanced_advantages,
    loss_scale,
)
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.settings import TrainerSettings

Load = Callable[..., LoadedModel]
#: Rounding of the dtype, over three layers forward and back (measured: 3e-7, 4e-3, 2e-3).
NORM_ERROR = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 1e-2}


@pytest.fixture
def near(load: Load, prompts: PromptBatch, rollout: Trace) -> Trace:
    """The rollout with the trainer's own log-probabilities, a little off: ratios near 1."""
    scored = score_rollout(
        load("fp32"), parse_mode("fp32"), prompts, rollout, TrainerSettings()
    ).trace
    noise = np.random.default_rng(0).normal(0.0, 0.1, rollout.logprobs.size)
    return replace(
        rollout,
        token_ids=rollout.token_ids.copy(),
        logprobs=(scored.logprobs + noise).astype(np.float32),
        cu_seqlens=rollout.cu_seqlens.copy(),
        mask=rollout.mask.copy(),
    )


def oracle(
    loaded: LoadedModel, prompts: PromptBatch, rollout: Trace, seed: int
) -> tuple[float, float]:
    """Loss and gradient norm, in float64 throughout."""
    model = loaded.model.double()
    model.zero_grad()
    advantages = balanced_advantages(rollout.sequences, seed)
    terms = []
    for index in range(rollout.sequences):
        prompt, response = prompts.ids(index), rollout.token_ids[rollout.sequence(index)].tolist()
        logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0]
        steps = torch.arange(len(response)) + len(prompt) - 1
        logprobs = torch.log_softmax(logits, -1)[steps, torch.tensor(response)]
        old = torch.tensor(rollout.logprobs[rollout.sequence(index)].tolist()).double()
        terms.append(advantages[index] * torch.exp(logprobs - old))
    loss = -torch.cat(terms).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    squares = sum(float((parameter.grad**2).sum()) for parameter in model.parameters())
    return loss.item(), squares**0.5


def report_of(
    loaded: LoadedModel, mode: str, prompts: PromptBatch, rollout: Trace, micro_batch: int = 1
) -> GradientReport:
    settings = TrainerSettings(backward=True, micro_batch=micro_batch, seed=4)
    report = score_rollout(loaded, parse_mode(mode), prompts, rollout, settings).gradient
    assert report is not None
    return report


@pytest.mark.parametrize("micro_batch", [1, 2, 5])
@pytest.mark.parametrize("mode", BASE_MODES)
def test_loss_and_norm_are_those_of_autograd(
    load: Load, prompts: PromptBatch, near: Trace, mode: str, micro_batch: int
) -> None:
    parsed = parse_mode(mode)
    report = report_of(load(mode), mode, prompts, near, micro_batch)
    loss, norm = oracle(load("fp32"), prompts, near, seed=4)
    error = NORM_ERROR[parsed.compute]
    assert report.loss == pytest.approx(loss, abs=error)
    assert report.norm == pytest.approx(norm, rel=error)
    assert report.nonfinite_values == 0
    assert report.loss_scale == (GRAD_SCALER_INIT if parsed.compute == "fp16" else 1.0)
    assert (report.engine_dtype, report.trainer_dtype) == ("fp16", mode)


def test_scoring_with_a_backward_pass_gives_the_same_trace(
    load: Load, prompts: PromptBatch, near: Trace
) -> None:
    loaded, mode = load("autocast-bf16"), parse_mode("autocast-bf16")
    with_it = score_rollout(loaded, mode, prompts, near, TrainerSettings(backward=True))
    without = score_rollout(loaded, mode, prompts, near, TrainerSettings())
    assert np.array_equal(with_it.trace.logprobs, without.trace.logprobs)
    assert with_it.backward_s > 0.0
    assert without.gradient is None


def test_gradients_do_not_leak_into_the_next_rollout(
    load: Load, prompts: PromptBatch, near: Trace
) -> None:
    loaded = load("fp32")
    first = report_of(loaded, "fp32", prompts, near)
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
    assert report_of(loaded, "fp32", prompts, near) == first


def test_an_overflowing_gradient_is_counted_and_has_no_norm(
    load: Load, prompts: PromptBatch, rollout: Trace
) -> None:
    """Rollout log-probabilities far too low: ratios of e^20 leave FP16's range when scaled."""
    far = replace(
        rollout,
        token_ids=rollout.token_ids.copy(),
        logprobs=np.full_like(rollout.logprobs, -25.0),
        cu_seqlens=rollout.cu_seqlens.copy(),
        mask=rollout.mask.copy(),
    )
    report = report_of(load("fp16"), "fp16", prompts, far)
    assert report.nonfinite_values > 0
    assert report.norm is None
    assert report.loss is not None


def test_only_fp16_is_scaled() -> None:
    scales = {mode: loss_scale(parse_mode(mode)) for mode in BASE_MODES}
    assert {mode for mode, scale in scales.items() if scale != 1.0} == {"fp16", "autocast-fp16"}


def test_norms_are_compared_on_the_same_rollout() -> None:
    def report(engine: str, trainer: str, norm: float | None) -> GradientReport:
        return GradientReport(engine, trainer, 0.0, norm, None, 0, 1.0)

    compared = against_fp32(
        [
            report("bf16", "bf16", 1.1),
            report("bf16", "fp32", 1.0),
            report("fp16", "bf16", 2.0),
            report("bf16", "fp16", None),
        ]
    )
    assert compared[0].norm_relative_difference == pytest.approx(0.1)
    assert compared[1].norm_relative_difference == 0.0
    assert [item.norm_relative_difference for item in compared[2:]] == [None, None]
