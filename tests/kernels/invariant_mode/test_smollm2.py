"""A real model, SmolLM2, in every layout and in micro-batches of 1, 2, 4 and 8."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from driftscope_kernels import ops
from driftscope_kernels.invariant_mode import invariant_mode
from driftscope_probes.models.cache import models_dir

Lay = Callable[..., list[Any]]
LAYOUTS = [("right", 2), ("right", 8), ("left", 4), ("left", 8), ("packed", 8)]


@pytest.fixture
def folder() -> Path:
    path = models_dir() / "smollm2-135m"
    if not (path / "config.json").is_file():
        pytest.skip("SmolLM2 is not there: driftscope model fetch smollm2-135m")
    return path


@torch.no_grad()
def scores(model: Any, layouts: list[Any], sequences: list[Tensor]) -> Tensor:
    hidden = [
        model.get_decoder()(
            input_ids=one.input_ids,
            attention_mask=one.attention_mask,
            position_ids=one.position_ids,
            use_cache=False,
        ).last_hidden_state.flatten(0, 1)[one.rows]
        for one in layouts
    ]
    return ops.token_logprob(torch.cat(hidden), model.lm_head.weight, torch.cat(sequences)).logprob


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_smollm2_has_the_same_bits_in_every_layout(
    folder: Path, lay: Lay, sequences: list[Tensor], dtype: torch.dtype
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).train()
    with invariant_mode() as mode:
        alone = scores(model, lay(), sequences)
        for kind, count in LAYOUTS:
            assert torch.equal(scores(model, lay(kind, count), sequences), alone), (kind, count)
    assert mode.coverage().stock == {}
    if dtype == torch.bfloat16:
        stock = scores(model, lay(), sequences)
        assert not torch.equal(scores(model, lay("packed", 8), sequences), stock)
