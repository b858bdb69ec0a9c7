"""Which fields of a config are dropout, under the names that architectures give them."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GPT2Config, LlamaConfig, MixtralConfig, PhimoeConfig

from driftscope_probes.trainer.randomness import Rate, randomness_words, rates_of


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (GPT2Config(), "dropout (attn 0.1, embd 0.1, resid 0.1)"),
        (LlamaConfig(attention_dropout=0.05), "dropout (attention 0.05)"),
        (MixtralConfig(router_jitter_noise=0.01), "router noise (router_jitter_noise 0.01)"),
        (
            PhimoeConfig(attention_dropout=0.1, input_jitter_noise=0.02, router_jitter_noise=0.0),
            "dropout (attention 0.1) and router noise (input_jitter_noise 0.02)",
        ),
    ],
)
def test_as_transformers_own_configs_name_it(config: Any, words: str) -> None:
    assert randomness_words(rates_of(config.to_dict())) == words


def test_none_where_every_rate_is_zero() -> None:
    assert rates_of(LlamaConfig().to_dict()) == ()
    assert rates_of({"dropout": False, "hidden_dropout": "0.1", "dropout_p": None}) == ()


def test_nested_ones_and_heads_that_are_not_there() -> None:
    config = {
        "text_config": {"hidden_dropout": 0.2},
        "classifier_dropout": 0.3,
        "summary_first_dropout": 0.4,
        "dropout": 1,
    }
    assert rates_of(config) == (
        Rate(field="dropout", rate=1.0),
        Rate(field="text_config.hidden_dropout", rate=0.2),
    )
