"""Request of a matrix probe: a model, the places, the sides and dtypes. Free of torch."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, field_validator

from driftscope_probes.dtypes import Dtype, parse_mode
from driftscope_probes.engines.settings import Kernels
from driftscope_probes.request_model import RequestModel, unique

#: The service's, or the command line's, own interpreter and environment.
HERE: Final = "here"
#: Every place holds the model once; comparisons grow with the classes, not with the places.
MOST_PLACES: Final = 64
#: Places of a cluster: none, every node that is alive, or one node of every type.
RayNodes = Literal["off", "each", "types"]


class MatrixRequest(RequestModel):
    """The same model at several places, the results compared with each other."""

    model: str = Field(min_length=1, max_length=500, description="catalogue name, folder or Hub id")
    places: list[str] | None = Field(
        None,
        min_length=1,
        max_length=MOST_PLACES,
        description="names; the first one samples the tokens. A name given twice runs twice. "
        "null: here and every other place known; here twice where there is none",
    )
    ray: RayNodes = Field(
        "off", description="also the Ray cluster's nodes: each one, or one of every type"
    )
    engine: Literal["vllm", "hf"] = "vllm"
    kernels: Kernels = Field("stock", description="both sides' own or batch-invariant ones")
    engine_dtypes: list[Dtype] = Field(["bf16"], min_length=1)
    trainer_dtypes: list[str] = Field(["bf16", "fp32"], min_length=1, max_length=10)
    prompts: int = Field(8, ge=1, le=256, description="how many of ours")
    max_tokens: int = Field(32, ge=1, le=4096, description="response tokens per prompt")
    seed: int = Field(0, ge=0, lt=2**31)
    threads: int | None = Field(
        None, ge=1, le=1024, description="null: every core of a place, or its OMP_NUM_THREADS"
    )
    place_seconds: int = Field(
        3600, ge=10, le=86_400, description="after which a place is given up"
    )

    @field_validator("trainer_dtypes")
    @classmethod
    def _known_modes(cls, modes: list[str]) -> list[str]:
        return unique([parse_mode(mode).name for mode in modes], "trainer_dtypes")

    @field_validator("engine_dtypes")
    @classmethod
    def _unique_dtypes(cls, dtypes: list[Dtype]) -> list[Dtype]:
        return unique(dtypes, "engine_dtypes")
