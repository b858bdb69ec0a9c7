"""A Trace on disk, and two of the same tokens in the push format, for any tool to read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from driftscope_probes.errors import TraceError
from driftscope_probes.trace import Trace, TraceMeta

SCHEMA_VERSION = "1"
_META_KEY = "driftscope_trace_meta"
_TENSORS = ("token_ids", "logprobs", "cu_seqlens", "mask")


def write_trace(trace: Trace, path: Path) -> None:
    """Write atomically: a reader sees the whole file or none."""
    partial = path.with_name(path.name + ".partial")
    tensors: dict[str, NDArray[Any]] = {
        "token_ids": np.ascontiguousarray(trace.token_ids),
        "logprobs": np.ascontiguousarray(trace.logprobs),
        "cu_seqlens": np.ascontiguousarray(trace.cu_seqlens),
        "mask": np.ascontiguousarray(trace.mask.astype(np.uint8)),
    }
    meta = {"schema_version": SCHEMA_VERSION, _META_KEY: json.dumps(trace.meta.to_dict())}
    save_file(tensors, partial, metadata=meta)
    partial.replace(path)


def read_trace(path: Path) -> Trace:
    """Raise TraceError when the file is missing, truncated or not a trace."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
    except (OSError, SafetensorError) as error:
        raise TraceError(
            f"{path} is not a readable trace file: {error}",
            remedy="give a .safetensors file that driftscope wrote.",
        ) from error
    if _META_KEY not in header:
        raise TraceError(
            f"{path} holds tensors but no trace meta.",
            remedy="give a .safetensors file that driftscope wrote.",
        )
    return Trace(
        token_ids=tensors["token_ids"].astype(np.int32, copy=False),
        logprobs=tensors["logprobs"].astype(np.float32, copy=False),
        cu_seqlens=tensors["cu_seqlens"].astype(np.int64, copy=False),
        mask=tensors["mask"].astype(np.bool_),
        meta=TraceMeta(**json.loads(header[_META_KEY])),
    )


PAIR_SCHEMA_VERSION = "1"
FRAMEWORK = "driftscope"


def pair_metadata(rollout: Trace, trainer: Trace) -> dict[str, str]:
    """What both sides say of themselves, as the push format names it."""
    asked = rollout.meta.settings
    metadata = {
        "schema_version": PAIR_SCHEMA_VERSION,
        "model": rollout.meta.model,
        "rollout_dtype": rollout.meta.dtype,
        "trainer_dtype": trainer.meta.dtype,
        "engine": rollout.meta.engine,
        "engine_version": rollout.meta.engine_version,
        "framework": FRAMEWORK,
    }
    names = ("temperature", "top_p", "top_k", "logprobs_mode")
    return metadata | {name: str(asked[name]) for name in names if name in asked}


def write_pair(
    rollout: Trace, trainer: Trace, path: Path, known: Mapping[str, str] | None = None
) -> None:
    """Tensors and metadata as the push format names them; `known`: further metadata."""
    tensors = {
        "rollout_logprobs": rollout.logprobs,
        "trainer_logprobs": trainer.logprobs,
        "cu_seqlens": rollout.cu_seqlens,
        "token_ids": rollout.token_ids,
        "mask": rollout.mask.astype(np.uint8),
    }
    arrays = {name: np.ascontiguousarray(t) for name, t in tensors.items()}
    save_file(arrays, path, {**pair_metadata(rollout, trainer), **(known or {})})
