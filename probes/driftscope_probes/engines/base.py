"""What every engine implements, and its responses as a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.server_logprobs import Gap
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.errors import EngineError, RequestError
from driftscope_probes.models.adapter import Adapter
from driftscope_probes.progress import ProgressSink
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace, TraceMeta


@dataclass(frozen=True, slots=True)
class RolloutTask:
    """Everything an engine needs for one rollout."""

    model_path: Path
    model_name: str  # as the user named it
    dtype: Dtype
    prompts: PromptBatch
    sampling: SamplingSettings
    engine: EngineSettings
    adapter: Adapter | None = None  # that vLLM's own LoRA serves, beside the model's weights

    @property
    def context(self) -> int:
        """Longest sequence, in tokens, that this task can reach."""
        return self.prompts.longest + self.sampling.max_tokens

    @property
    def batch_size(self) -> int:
        """Sequences decoded together by default."""
        return self.engine.batch_size or min(len(self.prompts), 256)

    def seed(self, index: int) -> int:
        """Seed of request `index`: its own, so that a token never depends on its batch."""
        return self.sampling.seed + index


class RolloutEngine(Protocol):
    """An engine is loaded by its constructor, generates once, and dies with its process."""

    def generate(self, progress: ProgressSink) -> Trace:
        """Sample a response to every prompt; log-probabilities in nats, float32."""
        ...

    def used_settings(self) -> dict[str, Any]:
        """Settings as the engine resolved them (JSON values), for the Trace."""
        ...


#: In transformers' order: the generation config takes precedence over the architecture's.
FILES = ("generation_config.json", "config.json")


def end_of_sequence_ids(model_path: Path) -> list[int]:
    """Raise RequestError for a model that names no end-of-sequence token."""
    for name in FILES:
        file = model_path / name
        if not file.exists():
            continue
        found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        if found is not None:
            return [found] if isinstance(found, int) else list(found)
    raise RequestError(
        f"neither {' nor '.join(FILES)} of the model names an end-of-sequence token.",
        remedy="let responses run to --max-tokens (--ignore-eos).",
    )


@dataclass(slots=True)
class Response:
    """Tokens sampled so far for one prompt. The one mutable value: engines fill it."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # nats
    gaps: tuple[Gap, ...] = ()  # of a server: what it did not send as a finite number


def trace_of(
    responses: Sequence[Response],
    task: RolloutTask,
    *,
    engine_version: str,
    settings: dict[str, Any],
) -> Trace:
    """Raise EngineError when a response is empty or lacks a log-probability."""
    for index, response in enumerate(responses):
        if not response.token_ids or len(response.token_ids) != len(response.logprobs):
            raise EngineError(
                f"the engine returned {len(response.token_ids)} tokens and "
                f"{len(response.logprobs)} log-probabilities for prompt {index}.",
                remedy="check that the engine returns the log-probability of each sampled token "
                "(vLLM: logprobs, return_token_ids).",
            )
    token_ids = [token for response in responses for token in response.token_ids]
    logprobs = [logprob for response in responses for logprob in response.logprobs]
    lengths = [0, *(len(response.token_ids) for response in responses)]
    return Trace(
        token_ids=np.array(token_ids, np.int32),
        logprobs=np.array(logprobs, np.float32),
        cu_seqlens=np.cumsum(lengths, dtype=np.int64),
        mask=np.ones(len(token_ids), np.bool_),
        meta=TraceMeta(
            side="rollout",
            model=task.model_name,
            dtype=task.dtype,
            engine=task.engine.kind,
            engine_version=engine_version,
            settings=settings,
        ),
    )


def asked_settings(task: RolloutTask) -> dict[str, Any]:
    """What the user asked for; an engine overlays what it then used."""
    asked = {"dtype": task.dtype, **task.engine.model_dump(), **task.sampling.model_dump()}
    asked["batch_size"] = task.batch_size
    if task.engine.server_url:
        asked["server_url"] = _without_credentials(task.engine.server_url)
    if task.adapter is not None:
        asked["lora"] = task.adapter.path.name
    asked["request_seed"] = "seed + prompt index"
    return asked


def _without_credentials(url: str) -> str:
    """A trace is kept and shown; a password in an address must not be."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
