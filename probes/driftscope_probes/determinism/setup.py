"""Setup: one engine as it is to be started. Two cells with equal setups share one engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Setup:
    dtype: Dtype
    engine: EngineSettings
    context: int  # longest sequence in tokens, the same for every cell of a probe
    cache_tokens: int | None = None  # the key-value cache holds no more; None: all it may need
    process: int = 0  # setups that differ in it alone run in processes of their own

    def changed(self, **settings: Any) -> Setup:
        """This setup with some engine settings replaced. Raises ValidationError."""
        engine = EngineSettings(**{**self.engine.model_dump(), **settings})
        return replace(self, engine=engine)

    def to_dict(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "engine": self.engine.model_dump(),
            "context": self.context,
            "cache_tokens": self.cache_tokens,
            "process": self.process,
        }

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Setup:
        assert fields["dtype"] in get_args(Dtype)
        return Setup(**{**fields, "engine": EngineSettings(**fields["engine"])})
