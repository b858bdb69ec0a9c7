"""Planted faults: a weight too large for FP16, and gradients too small for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from driftscope_probes.dtypes import parse_mode
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace
from driftscope_probes.trainer.forward import score_rollout
from driftscope_probes.trainer.half_precision_range import FP16_MAX
from driftscope_probes.trainer.headroom import measure_headroom
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.settings import TrainerSettings

Load = Callable[..., LoadedModel]
Save = Callable[..., Path]
HUGE = "model.layers.1.mlp.down_proj"


@pytest.fixture
def measure(
    load: Load, prompts: PromptBatch, rollout: Trace
) -> Callable[[LoadedModel], dict[str, Any]]:
    def run(loaded: LoadedModel) -> dict[str, Any]:
        return measure_headroom(
            loaded, prompts, rollout, TrainerSettings(headroom_sequences=3)
        ).to_dict()

    return run


Measure = Callable[[LoadedModel], dict[str, Any]]


def own_logits(loaded: LoadedModel, prompts: PromptBatch, rollout: Trace) -> list[torch.Tensor]:
    """At the positions that predict response tokens, of the first three sequences."""
    found = []
    for index in range(3):
        prompt, response = prompts.ids(index), rollout.token_ids[rollout.sequence(index)].tolist()
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.tensor([prompt + response])).logits[0]
        found.append(logits[len(prompt) - 1 : -1])
    return found


def test_an_ordinary_model_is_safe(
    load: Load, prompts: PromptBatch, rollout: Trace, measure: Measure
) -> None:
    loaded = load("fp32")
    report = measure(loaded)
    assert report["safe"] is True
    assert (report["sequences"], report["tokens"]) == (3, 33)
    assert (report["mode"], report["limit"]) == ("fp32", FP16_MAX)
    largest = max(float(logits.abs().max()) for logits in own_logits(loaded, prompts, rollout))
    assert report["largest_logit"] == pytest.approx(largest, rel=1e-5)
    names = {layer["layer"] for layer in report["layers"]}
    assert {"model.embed_tokens", HUGE, "model.norm", "lm_head"} <= names
    assert report["largest_activation_layer"] in names


def test_a_huge_weight_is_refused_and_its_layer_named(
    load: Load, save_llama: Save, measure: Measure
) -> None:
    def enlarge(model: Any) -> None:
        model.get_submodule(HUGE).weight.mul_(3e5)

    report = measure(load("fp32", folder=save_llama(enlarge)))
    assert report["safe"] is False
    assert report["largest_activation"] > FP16_MAX
    assert report["largest_activation_layer"] == HUGE
    assert HUGE in report["sentence"]
    layer = next(layer for layer in report["layers"] if layer["layer"] == HUGE)
    assert layer["activation_overflow_share"] > 0.0


def test_what_the_headroom_refuses_breaks_in_fp16(
    load: Load, save_llama: Save, prompts: PromptBatch, rollout: Trace
) -> None:
    def enlarge(model: Any) -> None:
        model.get_submodule(HUGE).weight.mul_(3e5)

    loaded = load("fp16", folder=save_llama(enlarge))
    scored = score_rollout(loaded, parse_mode("fp16"), prompts, rollout, TrainerSettings())
    assert not np.isfinite(scored.trace.logprobs).all()


def test_tiny_gradients_vanish_without_a_scale_and_fit_with_it(
    load: Load, save_llama: Save, measure: Measure
) -> None:
    """A head of almost nothing hands almost no gradient down."""

    def shrink(model: Any) -> None:
        model.lm_head.weight.mul_(1e-6)

    report = measure(load("fp32", folder=save_llama(shrink)))
    inner = [layer for layer in report["layers"] if layer["layer"].startswith("model.layers.0.mlp")]
    assert min(layer["gradient_underflow_share"] for layer in inner) > 0.5
    assert max(layer["scaled_gradient_underflow_share"] for layer in inner) < 0.01
    assert report["safe"] is True
    assert "use loss scaling" in report["sentence"]


def test_gradients_too_large_for_the_first_scale_are_measured_at_the_one_that_fits(
    load: Load, save_llama: Save, measure: Measure
) -> None:
    """Hidden states a thousandth as large, under a head that makes up for it: large gradients."""

    def magnify(model: Any) -> None:
        model.model.norm.weight.mul_(1e-3)
        model.lm_head.weight.mul_(1e3)

    report = measure(load("fp32", folder=save_llama(magnify)))
    assert 1.0 <= report["loss_scale"] < 65_536.0
    assert max(layer["scaled_gradient_overflow_share"] for layer in report["layers"]) == 0.0
    assert report["largest_gradient"] * report["loss_scale"] * 2 >= FP16_MAX
    assert "65,536 overflows" in report["sentence"] or not report["safe"]


def test_the_head_gradient_is_seen(load: Load, measure: Measure) -> None:
    """Untied, the head's weight gradient belongs to lm_head beside its logits."""
    report = measure(load("fp32"))
    head = next(layer for layer in report["layers"] if layer["layer"] == "lm_head")
    assert head["gradient_max"] > 0.0
    assert head["activation_max"] == report["largest_logit"]


def test_a_mixture_of_experts_is_measured(load: Load, moe_folder: Path, measure: Measure) -> None:
    report = measure(load("fp32", folder=moe_folder))
    experts = next(
        layer for layer in report["layers"] if layer["layer"] == "model.layers.0.mlp.experts"
    )
    assert experts["activation_max"] > 0.0
    assert experts["gradient_max"] > 0.0


def test_the_model_is_left_as_it_was(load: Load, measure: Measure) -> None:
    loaded = load("fp32")
    first = measure(loaded)
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
    assert measure(loaded) == first
