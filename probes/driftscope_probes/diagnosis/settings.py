"""Settings: what the metadata of a step say about how it was made.

In: the metadata's strings, names as in docs/push-format.md and as frameworks spell them. Out:
numbers and words; None where nobody said, and what cannot be read counts as not said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from driftscope_kernels.on_policy.weights.recorded import WeightsDigest, read_text
from driftscope_probes.diagnosis.floor import short_dtype

#: Spellings of "off" in settings that frameworks pass on as strings.
OFF = frozenset({"", "0", "false", "none", "null", "off", "no", "auto", "bf16", "fp16", "fp32"})
#: Names under which a setting is looked for, in this order, whatever their case.
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "rollout_dtype": ("rollout_dtype", "engine_dtype"),
    "trainer_dtype": ("trainer_dtype",),
    "temperature": ("temperature",),
    "trainer_temperature": ("trainer_temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "min_p": ("min_p",),
    "logprobs_mode": ("logprobs_mode",),
    "quantization": ("quantization", "rollout_quantization"),
    "kv_cache_dtype": ("kv_cache_dtype",),
    "adapter": ("lora", "adapter", "lora_rank", "peft", "lora_r", "adapter_name"),
    "trainer_dropout": ("trainer_dropout",),
    "weights_fraction": ("weights_fraction",),
    "speculative": (
        *("speculative_config", "speculative"),
        *("num_speculative_tokens", "spec_decode"),
    ),
    "prefix_caching": ("prefix_caching", "enable_prefix_caching"),
    "weights_version": ("weights_version",),
    "weights_digest": ("weights_digest",),
    "model": ("model",),
}


@dataclass(frozen=True, slots=True)
class Settings:
    rollout_dtype: str | None
    trainer_dtype: str | None
    temperature: float | None  # that tokens are drawn at
    trainer_temperature: float | None  # that the trainer divides its logits by
    top_p: float | None
    top_k: int | None
    min_p: float | None
    processed: bool | None  # log-probabilities after temperature and truncation
    quantization: str | None  # of the engine's weights
    kv_cache_dtype: str | None
    adapter: str | None  # LoRA
    trainer_dropout: str | None  # rates that were drawn while the trainer scored
    weights_fraction: float | None  # of ΣΔ², as measured with the other side's weights
    speculative: str | None
    prefix_caching: bool | None
    weights_version: int | None
    weights_digest: WeightsDigest | None  # of both sides, after the sync
    model: str | None

    @property
    def truncated(self) -> bool:
        """The sampling asked for leaves tokens out."""
        return bool(
            (self.top_p is not None and self.top_p < 1.0)
            or (self.top_k is not None and self.top_k > 0)
            or (self.min_p is not None and self.min_p > 0)
        )

    @property
    def states_no_truncation(self) -> bool:
        """Each of the three is given, and off: then no engine fills it in from the model's file."""
        given = self.top_p is not None and self.top_k is not None and self.min_p is not None
        return given and not self.truncated

    @property
    def states_one_temperature(self) -> bool:
        """Both sides are given, equal, and of the values that were sent."""
        if self.temperature is None or self.trainer_temperature is None:
            return False
        equal = math.isclose(self.temperature, self.trainer_temperature)
        return equal and (self.processed is True or math.isclose(self.temperature, 1.0))

    @property
    def first_version(self) -> bool:
        """Nothing has been synced or reloaded yet."""
        return self.weights_version == 0


def settings_of(metadata: Mapping[str, str]) -> Settings:
    lower = {name.lower(): value.strip() for name, value in metadata.items()}

    def first(setting: str) -> str | None:
        return next((lower[name] for name in NAMES[setting] if lower.get(name)), None)

    def said(setting: str) -> str | None:
        value = first(setting)
        return None if value is None or value.lower() in OFF else value

    def number(setting: str) -> float | None:
        try:
            value = float(first(setting) or "nan")
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    mode = first("logprobs_mode")
    top_k = number("top_k")
    version = number("weights_version")
    rollout = short_dtype(first("rollout_dtype"))
    caching = first("prefix_caching")
    return Settings(
        rollout_dtype=rollout,
        trainer_dtype=short_dtype(first("trainer_dtype")),
        temperature=number("temperature"),
        trainer_temperature=number("trainer_temperature"),
        top_p=number("top_p"),
        top_k=None if top_k is None else int(top_k),
        min_p=number("min_p"),
        processed=None if mode is None else mode.startswith("processed"),
        quantization=said("quantization")
        or (rollout if rollout in ("fp8", "int8", "int4") else None),
        kv_cache_dtype=short_dtype(said("kv_cache_dtype")),
        adapter=said("adapter"),
        trainer_dropout=said("trainer_dropout"),
        weights_fraction=number("weights_fraction"),
        speculative=said("speculative"),
        prefix_caching=None if caching is None else caching.lower() not in OFF,
        weights_version=None if version is None else int(version),
        weights_digest=read_text(first("weights_digest") or ""),
        model=first("model"),
    )
