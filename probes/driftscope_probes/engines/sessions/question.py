"""What an engine of a session is asked and answers: Setup, Row, Batch, Output, Answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.settings import EngineSettings

#: Done to a running engine before a batch. Whether it changed the engine for good is the question.
Event = Literal["sleep_wake", "reload"]


@dataclass(frozen=True, slots=True)
class Setup:
    dtype: Dtype
    engine: EngineSettings
    context: int  # longest sequence in tokens, the same for every cell of a probe
    cache_tokens: int | None = None  # the key-value cache holds no more; None: all it may need
    process: int = 0  # setups that differ in it alone run in processes of their own
    replica: int = 0  # setups that differ in it alone run beside each other, at the same time
    model: str | None = None  # folder of other weights than the session's; None: those
    adapter: Path | None = None  # folder of a LoRA adapter that vLLM's own LoRA serves

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
            "replica": self.replica,
            "model": self.model,
            "adapter": None if self.adapter is None else str(self.adapter),
        }

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Setup:
        assert fields["dtype"] in get_args(Dtype)
        adapter = Path(fields["adapter"]) if fields["adapter"] else None
        return Setup(**{**fields, "engine": EngineSettings(**fields["engine"]), "adapter": adapter})


@dataclass(frozen=True, slots=True)
class Draw:
    """How rows with a seed are drawn; rows without one are greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: the whole vocabulary
    ignore_eos: bool = True  # of greedy rows too

    def fields(self, *, seeded: bool) -> dict[str, Any]:
        """Of SamplingSettings and of a server's request alike."""
        if not seeded:
            return {"temperature": 0.0, "ignore_eos": self.ignore_eos}
        return asdict(self)


AT_ONE = Draw()


@dataclass(frozen=True, slots=True)
class Row:
    """One request. Rows of one key are asked the same thing, so that their bits must be equal."""

    key: str
    prompt: tuple[int, ...]
    seed: int | None = None  # None: greedy; else drawn with a generator of its own
    arrival: int = 0  # engine steps (a server: ARRIVAL_GAP_S each) after the first row
    score: tuple[int, ...] = ()  # tokens to score after the prompt instead of sampling


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in the order of submission."""

    rows: tuple[Row, ...]
    max_tokens: int
    warm: bool = False  # the same rows once before, so that the prefix cache holds their prompts
    run: int = 0  # batches that differ in it alone are run anew, not remembered
    draw: Draw = AT_ONE
    before: tuple[Event, ...] = ()  # done to the engine first, once for all batches that ask it
    routes: bool = False  # rows are scored one at a time, and the experts of each token told

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Batch:
        rows = tuple(
            Row(**{**row, "prompt": tuple(row["prompt"]), "score": tuple(row["score"])})
            for row in fields["rows"]
        )
        draw, before = Draw(**fields["draw"]), tuple(fields["before"])
        return Batch(**{**fields, "rows": rows, "draw": draw, "before": before})


@dataclass(frozen=True, slots=True)
class Output:
    """The tokens of one row and their log-probabilities (nats), [tokens] each."""

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    #: Expert ids of prompt and response, [tokens, layers, used], where the batch asks for them.
    routes: NDArray[np.int16] | None = None

    @staticmethod
    def of(token_ids: list[int], logprobs: list[float]) -> Output:
        return Output(np.array(token_ids, np.int32), np.array(logprobs, np.float32))

    def to_dict(self) -> dict[str, Any]:
        """Bits, not decimals: no rounding on the way."""
        told = {"tokens": self.token_ids.tolist(), "bits": self.logprobs.view(np.uint32).tolist()}
        return told if self.routes is None else {**told, "routes": self.routes.tolist()}

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Output:
        bits = np.array(fields["bits"], np.uint32)
        routes = fields.get("routes")
        return Output(
            np.array(fields["tokens"], np.int32),
            bits.view(np.float32),
            None if routes is None else np.array(routes, np.int16),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs in the order of the rows, and what shows that the engine did what was meant."""

    outputs: tuple[Output, ...]
    preemptions: int | None = None  # None: the engine does not tell
    cached_tokens: int | None = None  # prompt tokens taken from the prefix cache

    def to_dict(self) -> dict[str, Any]:
        return {
            "outputs": [output.to_dict() for output in self.outputs],
            "preemptions": self.preemptions,
            "cached_tokens": self.cached_tokens,
        }

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Answer:
        outputs = tuple(Output.from_dict(output) for output in fields["outputs"])
        return Answer(outputs, fields["preemptions"], fields["cached_tokens"])
