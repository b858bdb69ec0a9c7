"""The trainer's option `kernels`: invariant log-probabilities in every layout, recorded as such."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftscope_probes.dtypes import parse_mode
from driftscope_probes.errors import TrainerError
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace
from driftscope_probes.trainer.forward import Scored, score_rollout
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.settings import TrainerSettings

Load = Callable[..., LoadedModel]
Save = Callable[..., Path]
LAYOUTS: list[dict[str, Any]] = [
    {"micro_batch": 2},
    {"micro_batch": 4, "padding_side": "left"},
    {"micro_batch": 8},
    {"micro_batch": 4, "batching": "packed"},
]


@pytest.fixture
def score(prompts: PromptBatch, rollout: Trace) -> Callable[..., Scored]:
    def run(loaded: LoadedModel, mode: str, **settings: Any) -> Scored:
        chosen = TrainerSettings(**{"kernels": "invariant", **settings})
        return score_rollout(loaded, parse_mode(mode), prompts, rollout, chosen)

    return run


@pytest.mark.parametrize("mode", ["bf16", "fp16", "fp32", "autocast-bf16", "bf16+fp32-head"])
def test_every_layout_gives_the_same_bits(
    load: Load, score: Callable[..., Scored], moe_folder: Path, mode: str
) -> None:
    for loaded in (load(mode), load(mode, folder=moe_folder)):
        alone = score(loaded, mode).trace.logprobs
        for layout in LAYOUTS:
            assert np.array_equal(score(loaded, mode, **layout).trace.logprobs, alone), layout


@pytest.mark.parametrize("mode", ["bf16", "fp16", "fp32"])
def test_stock_kernels_give_others(load: Load, score: Callable[..., Scored], mode: str) -> None:
    loaded = load(mode)
    alone = score(loaded, mode, kernels="stock").trace.logprobs
    assert not all(
        np.array_equal(score(loaded, mode, kernels="stock", **layout).trace.logprobs, alone)
        for layout in LAYOUTS
    )


def test_the_choice_and_what_it_did_not_cover_are_recorded(
    load: Load, score: Callable[..., Scored]
) -> None:
    loaded = load("bf16")
    settings = score(loaded, "bf16").trace.meta.settings
    assert (settings["kernels"], settings["stock_ops"]) == ("invariant", {})
    stock = score(loaded, "bf16", kernels="stock").trace.meta.settings
    assert stock["kernels"] == "stock" and "stock_ops" not in stock
    assert TrainerSettings().kernels == "stock"


def test_values_stay_close_to_stock(load: Load, score: Callable[..., Scored]) -> None:
    loaded = load("fp32")
    ours, stock = score(loaded, "fp32"), score(loaded, "fp32", kernels="stock")
    assert np.abs(ours.trace.logprobs - stock.trace.logprobs).max() < 1e-5


def test_the_backward_pass_is_run_on_them_too(load: Load, score: Callable[..., Scored]) -> None:
    loaded = load("fp32")
    ours = score(loaded, "fp32", backward=True)
    stock = score(loaded, "fp32", backward=True, kernels="stock")
    # The loss itself, in float64.
    assert set(ours.trace.meta.settings["stock_ops"]) <= {"aten.sum"}
    assert ours.gradient is not None and stock.gradient is not None
    assert ours.gradient.norm == pytest.approx(stock.gradient.norm, rel=1e-4)


def test_dropout_is_refused(load: Load, save_llama: Save, score: Callable[..., Scored]) -> None:
    loaded = load("fp32", folder=save_llama(attention_dropout=0.1))
    with pytest.raises(TrainerError, match="depends on the place in the batch"):
        score(loaded, "fp32")
