"""Metadata of a pushed step → settings, by the names that the diagnosis reads them by.

In: the strings of the metadata. Out: Settings, whose places are the metadata's own keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from driftscope_probes.diagnosis.settings import NAMES as SPELLINGS
from driftscope_probes.diagnosis.settings import settings_of
from driftscope_probes.lint.base import Scalar, Setting, Settings

#: Attribute of the diagnosis' settings → the spellings it was read by, and the canonical name.
READ: Final[Mapping[str, tuple[str, str]]] = {
    "rollout_dtype": ("rollout_dtype", "engine.dtype"),
    "trainer_dtype": ("trainer_dtype", "trainer.dtype"),
    "temperature": ("temperature", "sampling.temperature"),
    "top_p": ("top_p", "sampling.top_p"),
    "top_k": ("top_k", "sampling.top_k"),
    "min_p": ("min_p", "sampling.min_p"),
    "processed": ("logprobs_mode", "engine.logprobs_mode"),
    "quantization": ("quantization", "engine.quantization"),
    "kv_cache_dtype": ("kv_cache_dtype", "engine.kv_cache_dtype"),
    "speculative": ("speculative", "engine.speculative"),
    "prefix_caching": ("prefix_caching", "engine.prefix_caching"),
    "model": ("model", "engine.model"),
}
#: The diagnosis keeps which of the two it is; both modes end in "logprobs" there.
_MODES: Final[Mapping[bool, str]] = {True: "processed_logprobs", False: "raw_logprobs"}


def settings_of_metadata(metadata: Mapping[str, str]) -> Settings:
    return Settings(tuple(_known(metadata)))


def _known(metadata: Mapping[str, str]) -> Iterator[Setting]:
    read = settings_of(metadata)
    given = {name.lower(): name for name, value in metadata.items() if value.strip()}
    for attribute, (spellings, name) in READ.items():
        value: Scalar | None = getattr(read, attribute)
        if value is None:
            continue
        if attribute == "processed":
            value = _MODES[bool(value)]
        # Of a quantisation that a dtype tells, the key is the dtype's.
        keys = [given[one] for one in SPELLINGS[spellings] if one in given]
        yield Setting(name, value, f"metadata: {keys[0] if keys else 'rollout_dtype'}")
