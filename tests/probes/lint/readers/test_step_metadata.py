"""Metadata as settings, with the key that the trainer wrote as the place."""

from __future__ import annotations

from driftscope_probes.lint.base import Setting
from driftscope_probes.lint.names import NAMES
from driftscope_probes.lint.readers.step_metadata import READ, settings_of_metadata


def test_spellings_of_frameworks_are_read_and_named() -> None:
    known = settings_of_metadata(
        {
            "Engine_dtype": "bfloat16",
            "temperature": "0.7",
            "logprobs_mode": "processed_logprobs",
            "enable_prefix_caching": "False",
            "top_k": "20",
            "note": "x",
        }
    )
    assert list(known) == [
        Setting("engine.dtype", "bf16", "metadata: Engine_dtype"),
        Setting("sampling.temperature", 0.7, "metadata: temperature"),
        Setting("sampling.top_k", 20, "metadata: top_k"),
        Setting("engine.logprobs_mode", "processed_logprobs", "metadata: logprobs_mode"),
        Setting("engine.prefix_caching", False, "metadata: enable_prefix_caching"),
    ]


def test_weights_of_an_fp8_engine_are_quantised_by_their_dtype() -> None:
    known = settings_of_metadata({"rollout_dtype": "fp8"})
    assert known.get("engine.quantization") == Setting(
        "engine.quantization", "fp8", "metadata: rollout_dtype"
    )


def test_what_cannot_be_read_is_not_said() -> None:
    assert list(settings_of_metadata({"temperature": "warm", "top_p": ""})) == []


def test_every_name_is_canonical() -> None:
    assert {name for _, name in READ.values()} <= NAMES.keys()
