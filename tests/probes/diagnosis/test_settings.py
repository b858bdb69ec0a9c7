"""Metadata as frameworks spell them."""

from __future__ import annotations

import pytest

from driftscope_probes.diagnosis.floor import prior_floor, short_dtype
from driftscope_probes.diagnosis.settings import settings_of


def test_nothing_said_is_nothing_known() -> None:
    found = settings_of({})
    assert found.temperature is None and found.processed is None and not found.truncated
    assert found.quantization is None and not found.first_version


def test_spellings() -> None:
    found = settings_of(
        {
            "Temperature": "0.6",
            "top_p": "0.95",
            "logprobs_mode": "processed_logprobs",
            "rollout_dtype": "torch.bfloat16",
            "quantization": "fp8",
            "enable_prefix_caching": "False",
            "weights_version": "0",
            "lora_rank": "8",
            "kv_cache_dtype": "fp8_e4m3",
        }
    )
    assert found.temperature == 0.6 and found.truncated and found.processed is True
    assert found.rollout_dtype == "bf16" and found.quantization == "fp8"
    assert found.prefix_caching is False and found.first_version
    assert found.adapter == "8" and found.kv_cache_dtype == "fp8"


@pytest.mark.parametrize("value", ["warm", "nan", "inf", ""])
def test_what_cannot_be_read_counts_as_not_said(value: str) -> None:
    assert settings_of({"temperature": value}).temperature is None


@pytest.mark.parametrize("value", ["none", "False", "0", "off", "auto"])
def test_off_is_off(value: str) -> None:
    found = settings_of({"quantization": value, "lora": value, "speculative_config": value})
    assert found.quantization is None and found.adapter is None and found.speculative is None


def test_an_fp8_rollout_is_a_quantised_one() -> None:
    assert settings_of({"rollout_dtype": "fp8"}).quantization == "fp8"


def test_the_coarser_side_carries_the_floor() -> None:
    assert prior_floor("bf16", "fp32").sigma == prior_floor("bf16", "bf16").sigma
    assert prior_floor("fp32", "fp32").sigma < prior_floor("fp16", "fp16").sigma
    assert prior_floor(None, "fp16").assumed == ("rollout_dtype",)
    assert short_dtype("torch.float16") == "fp16" and short_dtype(None) is None
