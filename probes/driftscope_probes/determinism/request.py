"""Request of a determinism probe: model, axes and their values, dtypes, kernels. Free of torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.settings import EngineKind, Kernels
from driftscope_probes.request_model import RequestModel

AxisName = Literal[
    "run_to_run",
    "batch_size",
    "position",
    "neighbours",
    "arrival_order",
    "staggered_arrival",
    "decode_vs_prefill",
    "seeded_sampling",
    "sglang_single",
    "sglang_mixed",
    "sglang_prefix",
    "thinking_machines",
    "prefix_cache",
    "chunked_prefill",
    "preemption",
    "sleep_wake",
    "reload",
    "replica",
    "restart",
    "fresh_process",
    "threads",
    "kv_split",
    "compiled",
]
AXES: tuple[AxisName, ...] = get_args(AxisName)
#: Compiling takes a C++ compiler and minutes.
DEFAULT_AXES: tuple[AxisName, ...] = tuple(axis for axis in AXES if axis != "compiled")
KernelsChoice = Literal["stock", "invariant", "both"]

MOST_BATCH = 1024
MOST_VALUES = 64
MOST_SAMPLES = 10_000
#: Rows of a batch whose size is not the question: enough that no engine treats it as a single one.
ROWS = 8
#: Short ones fill batches cheaply. One in eight is long: only from about a hundred tokens on does
#: vLLM's CPU attention cut the keys of one sequence into pieces for its threads.
PROMPT_TOKENS = (24, 320, 40, 32, 48, 24, 56, 40)

Value = Annotated[int, Field(ge=0, le=1_048_576)] | Annotated[str, Field(max_length=32)]


class DeterminismRequest(RequestModel):
    """Every axis, at every dtype, with every choice of kernels."""

    model: str = Field(min_length=1, max_length=500, description="catalogue name, folder or Hub id")
    axes: list[AxisName] | None = Field(None, min_length=1, description="null: all but compiled")
    engine: EngineKind = "vllm"
    engine_dtypes: list[Dtype] = Field(["bf16"], min_length=1)
    kernels: KernelsChoice = "stock"
    threads: int | None = Field(None, ge=1, le=1024, description="null: every core available")
    attention_split_kv: bool | None = Field(None, description="vLLM on CPU")
    batch_sizes: list[Annotated[int, Field(ge=1, le=MOST_BATCH)]] = Field(
        [1, 2, 4, 8, 16, 32],
        min_length=2,
        max_length=MOST_VALUES,
        description="the smallest is the reference",
    )
    values: list[Value] | None = Field(
        None,
        min_length=2,
        max_length=MOST_VALUES,
        description="of the one axis named, the reference first; null: its own",
    )
    prompt_tokens: list[Annotated[int, Field(ge=1, le=131_072)]] = Field(
        list(PROMPT_TOKENS),
        min_length=1,
        max_length=MOST_VALUES,
        description="lengths of the prompts, in turn",
    )
    max_tokens: int = Field(12, ge=1, le=4096, description="tokens decoded per request")
    samples: int = Field(50, ge=2, le=MOST_SAMPLES, description="of thinking_machines")
    runs: int = Field(3, ge=2, le=100, description="of run_to_run and restart")
    run_rows: list[Annotated[int, Field(ge=1, le=MOST_BATCH)]] | None = Field(
        None,
        min_length=1,
        max_length=MOST_VALUES,
        description="rows that run_to_run repeats; null: 8 and the largest of batch_sizes",
    )
    seed: int = Field(0, ge=0, lt=2**31)
    bisect: bool = Field(True, description="look for the onset between tested values")
    explain: bool = Field(
        False, description="where batch_size differs: which op makes it, and for what reason"
    )
    server_url: str | None = Field(None, max_length=2000, description="for vllm-server")
    server_model: str | None = Field(None, max_length=500)

    @field_validator("axes", "engine_dtypes", "batch_sizes", "values", "run_rows")
    @classmethod
    def _unique(cls, given: list[str | int] | None) -> list[str | int] | None:
        if given is not None and len(set(given)) != len(given):
            raise ValueError(f"names a value twice: {', '.join(map(str, given))}")
        return given

    @field_validator("server_url")
    @classmethod
    def _no_password(cls, given: str | None) -> str | None:
        if given is not None and "@" in urlsplit(given).netloc:
            raise ValueError("holds a user or password, and reports keep it: leave it out")
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.values is not None and (self.axes is None or len(self.axes) != 1):
            raise ValueError("values are of one axis: name that axis alone in axes")
        if self.engine != "vllm" and self.kernels != "stock":
            raise ValueError(f"kernels {self.kernels} are for engine vllm, not {self.engine}")
        if self.engine == "vllm-server" and len(self.engine_dtypes) != 1:
            raise ValueError("a running server has one dtype: name it alone in engine_dtypes")
        return self

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        if self.engine == "vllm-server" and not self.server_url:
            raise ValueError("engine vllm-server needs server_url")
        return self

    @model_validator(mode="after")
    def _ops_are_seen(self) -> Self:
        if self.explain and self.engine != "vllm":
            raise ValueError(f"explain looks into engine vllm, not {self.engine}")
        if self.explain and "batch_size" not in self.chosen_axes:
            raise ValueError("explain is of the axis batch_size: name it in axes")
        return self

    @property
    def chosen_axes(self) -> tuple[AxisName, ...]:
        """In an order in which axes that share an engine come together."""
        asked = DEFAULT_AXES if self.axes is None else self.axes
        return tuple(axis for axis in AXES if axis in asked)

    @property
    def rows_repeated(self) -> tuple[int, ...]:
        """Of run_to_run, rising."""
        return tuple(sorted(self.run_rows or {ROWS, max(self.batch_sizes)}))

    @property
    def chosen_kernels(self) -> tuple[Kernels, ...]:
        return ("stock", "invariant") if self.kernels == "both" else (self.kernels,)
