"""Request of a kernel check: which kernels, dtypes, thread counts. Free of torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from driftscope_probes.dtypes import Dtype
from driftscope_probes.request_model import RequestModel

#: A kernel's name as the registry takes it; a longer one is a mistake.
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
Threads = Annotated[int, Field(ge=1, le=64)]
MOST_NAMES = 64
MOST_THREAD_COUNTS = 8


class KernelsRequest(RequestModel):
    """Every kernel of `targets` and `ops`, at every dtype and number of threads."""

    targets: list[Name] | None = Field(
        None,
        min_length=1,
        max_length=MOST_NAMES,
        description="driftscope, torch, vllm, …; null: all",
    )
    ops: list[Name] | None = Field(
        None, min_length=1, max_length=MOST_NAMES, description="linear, rms_norm, …; null: all"
    )
    dtypes: list[Dtype] | None = Field(None, min_length=1, description="null: all")
    threads: list[Threads] | None = Field(
        None,
        min_length=1,
        max_length=MOST_THREAD_COUNTS,
        description="null: 1, and 2 where there are cores",
    )
    axes: list[Name] | None = Field(
        None,
        min_length=1,
        max_length=MOST_NAMES,
        description="batch_size, layout, …, one by one; null: all, and proofs",
    )
    quick: bool = Field(False, description="fewer rows and shapes")
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @field_validator("targets", "ops", "dtypes", "threads", "axes")
    @classmethod
    def _unique(cls, values: list[str] | list[int] | None) -> list[str] | list[int] | None:
        if values is not None and len(set(values)) != len(values):
            raise ValueError(f"names a value twice: {', '.join(map(str, values))}")
        return values
