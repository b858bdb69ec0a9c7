"""A probe's request → settings: the engine's, the sampling's and the trainer's, as they were asked.

In: the JSON of a request, whatever its kind. Out: Settings, whose places are the request's fields.
A grid has one dtype in each cell: only a request for a single one says what the engine computes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from driftscope_probes.dtypes import TrainerMode, parse_mode
from driftscope_probes.lint.base import Scalar, Setting, Settings

#: What a field says, by its dotted name: the canonical name, and the value in its words.
_Field = tuple[str, Callable[[Any], Scalar | None]]


def _as_is(value: Any) -> Scalar | None:
    return value if isinstance(value, bool | int | float | str) else None


def _opposite(value: Any) -> Scalar | None:
    return None if value is None else not value


def _engine_name(kind: Any) -> Scalar | None:
    """A server is of vLLM; transformers as an engine has none of its settings."""
    return "vllm" if isinstance(kind, str) and kind.startswith("vllm") else None


def _if_invariant(kernels: Any) -> Scalar | None:
    return True if kernels == "invariant" else None


def _single_dtype(dtypes: Any) -> Scalar | None:
    return _as_is(dtypes[0]) if isinstance(dtypes, list) and len(dtypes) == 1 else None


def _single_mode(modes: Any) -> TrainerMode | None:
    one = _single_dtype(modes)
    return parse_mode(one) if isinstance(one, str) else None


def _trainer_dtype(modes: Any) -> Scalar | None:
    """Of a mode such as autocast-bf16 that of its products, not of its weights."""
    mode = _single_mode(modes)
    return None if mode is None else mode.compute


def _master_dtype(modes: Any) -> Scalar | None:
    mode = _single_mode(modes)
    return None if mode is None else mode.weights


def _fp32_head(modes: Any) -> Scalar | None:
    mode = _single_mode(modes)
    return None if mode is None else mode.fp32_head


def _is_packed(batching: Any) -> Scalar | None:
    return None if batching is None else batching == "packed"


FIELDS: Final[Mapping[str, Sequence[_Field]]] = {
    "engine_dtypes": [("engine.dtype", _single_dtype)],
    "trainer_dtypes": [
        ("trainer.dtype", _trainer_dtype),
        ("trainer.master_dtype", _master_dtype),
        ("trainer.fp32_head", _fp32_head),
    ],
    "trainer.attention": [("trainer.attention", _as_is)],
    "trainer.batching": [("trainer.packing", _is_packed)],
    "trainer.micro_batch": [("trainer.scoring_micro_batch", _as_is)],
    "engine": [("engine.name", _engine_name)],  # of a probe without more settings of its engine
    "engine.kind": [("engine.name", _engine_name)],
    "engine.kernels": [("engine.batch_invariant", _if_invariant)],
    "engine.logprobs_mode": [("engine.logprobs_mode", _as_is)],
    "engine.batch_size": [("engine.max_sequences", _as_is)],
    "engine.prefix_caching": [("engine.prefix_caching", _as_is)],
    "engine.chunked_prefill_tokens": [
        ("engine.max_batched_tokens", _as_is),
        ("engine.chunked_prefill", lambda tokens: None if tokens is None else True),
    ],
    "engine.compile": [("engine.eager", _opposite)],
    "engine.cascade_attention": [("engine.cascade_attention", _as_is)],
    "engine.attention_split_kv": [("environment.cpu_split_kv", _as_is)],
    "engine.threads": [("environment.cpu_threads", _as_is)],
    "sampling.temperature": [("sampling.temperature", _as_is)],
    "sampling.top_p": [("sampling.top_p", _as_is)],
    "sampling.top_k": [("sampling.top_k", _as_is)],
}


def settings_of_request(request: Mapping[str, Any]) -> Settings:
    """`request`: as model_dump gives it."""
    return Settings(tuple(_known(request)))


def _known(request: Mapping[str, Any]) -> Iterator[Setting]:
    for field, targets in FIELDS.items():
        given: Any = request
        for part in field.split("."):
            given = given.get(part) if isinstance(given, Mapping) else None
        for name, value_of in targets:
            value = value_of(given)
            if value is not None:
                yield Setting(name, value, f"request: {field}")
