from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from driftscope_probes.errors import TrainerError
from driftscope_probes.trainer.load import find_head

SMALL: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=16)), id="softcap"),
        pytest.param(lambda: CohereForCausalLM(CohereConfig(**SMALL)), id="logit_scale"),
        pytest.param(
            lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=2.0)),
            id="logits_scaling",
        ),
    ],
)
def test_more_than_a_matrix_product_is_refused(model: Any) -> None:
    built = model()
    with pytest.raises(TrainerError, match="more than one matrix product"):
        find_head(built, built.get_decoder())


def test_a_head_with_a_bias_is_found() -> None:
    model = PhiForCausalLM(PhiConfig(**SMALL))
    with torch.no_grad():
        model.lm_head.bias.normal_()
    head = find_head(model, model.get_decoder())
    assert head.weight is model.lm_head.weight
    assert head.bias is model.lm_head.bias


def test_a_decoder_that_overflows_is_not_blamed_on_the_head() -> None:
    model = PhiForCausalLM(PhiConfig(**SMALL))
    with torch.no_grad():
        model.model.final_layernorm.weight.fill_(torch.nan)
    assert find_head(model, model.get_decoder()).weight is model.lm_head.weight
