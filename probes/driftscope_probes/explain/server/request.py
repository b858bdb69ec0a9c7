"""Request of an explanation where the engine is a server that tells log-probabilities alone.

Free of torch. The address is a user's own, from a command line: no API client may name one.
"""

from __future__ import annotations

from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from driftscope_probes.dtypes import Dtype, parse_mode
from driftscope_probes.engines.settings import LogprobsMode, SamplingSettings
from driftscope_probes.explain.request import ExplainTrainer
from driftscope_probes.paired.request import bounded_prompts
from driftscope_probes.prompts import Prompt

#: 256 sampled tokens tell a gap of half from one of a whole, and take a small model seconds.
PROMPTS: Final = 8
MAX_TOKENS: Final = 32
#: Tokens of the texts that are cut: past the tiles and blocks of known kernels (176, 128), and
#: short enough for the trainer of a small model. Windows and chunks that begin later need more.
LONGEST: Final = 512
#: Fewer tokens than this hold no border that could be told from the noise around it.
LEAST_LONGEST: Final = 96


class ServerExplainRequest(BaseModel):
    """What of a server's gap to the trainer can be explained from outside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine_server: str = Field(
        min_length=1, max_length=2000, description="base URL of the vLLM server"
    )
    model: str = Field(
        min_length=1, max_length=500, description="what the server should serve: name or folder"
    )
    server_model: str | None = Field(None, max_length=500, description="its name on the server")
    trainer_model: str | None = Field(
        None, min_length=1, max_length=500, description="the trainer's own; null: as `model`"
    )
    other_models: list[str] = Field(
        default=[], max_length=8, description="folders whose weights the server might hold instead"
    )
    prompts: list[Prompt] | int = Field(PROMPTS, description="the prompts, or how many of ours")
    chat_template: bool | None = Field(None, description="None: where the tokenizer has one")
    engine_dtype: Dtype = Field("bf16", description="what the server was started with")
    trainer_dtype: str = Field("bf16", description="bf16, fp16, fp32, autocast-bf16, …")
    logprobs_mode: LogprobsMode = Field("raw_logprobs", description="as the server was started")
    sampling: SamplingSettings = SamplingSettings(max_tokens=MAX_TOKENS)
    trainer: ExplainTrainer = ExplainTrainer()
    longest: int = Field(LONGEST, ge=LEAST_LONGEST, le=131_072, description="tokens of a cut text")
    request_timeout_s: float = Field(120.0, gt=0.0, le=3600.0, description="of one request")
    budget_s: float = Field(300.0, gt=0.0, le=86_400.0, description="no measurement starts later")
    most_requests: int = Field(400, ge=20, le=100_000, description="sent to the server in all")

    @field_validator("prompts")
    @classmethod
    def _bounded(cls, prompts: list[Prompt] | int) -> list[Prompt] | int:
        return bounded_prompts(prompts)

    @field_validator("trainer_dtype")
    @classmethod
    def _known_mode(cls, mode: str) -> str:
        return parse_mode(mode).name

    @field_validator("engine_server")
    @classmethod
    def _address(cls, address: str) -> str:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give an address such as http://127.0.0.1:8000")
        return address.rstrip("/")

    @model_validator(mode="after")
    def _raw_where_read(self) -> Self:
        """A server scores prompts behind no temperature: both ways must mean the same number."""
        sampling = self.sampling
        plain = sampling.temperature in (0.0, 1.0) and sampling.top_p == 1.0 and not sampling.top_k
        if self.logprobs_mode == "processed_logprobs" and not plain:
            raise ValueError(
                "processed log-probabilities are explained at temperature 1 (or 0), top_p 1 and "
                "top_k 0, where they equal raw ones: leave the others out"
            )
        return self
