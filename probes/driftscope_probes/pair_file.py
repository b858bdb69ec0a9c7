"""A Pair on disk in the push format (safetensors), so that any tool can analyse it again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from driftscope_probes.trace import Pair

SCHEMA_VERSION = "1"
FRAMEWORK = "driftscope"


def write_pair(pair: Pair, path: Path) -> None:
    """Tensors and metadata as the push format names them."""
    rollout, trainer = pair.rollout, pair.trainer
    asked = rollout.meta.settings
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "model": rollout.meta.model,
        "rollout_dtype": rollout.meta.dtype,
        "trainer_dtype": trainer.meta.dtype,
        "engine": rollout.meta.engine,
        "engine_version": rollout.meta.engine_version,
        "framework": FRAMEWORK,
    }
    names = ("temperature", "top_p", "top_k", "logprobs_mode")
    metadata |= {name: str(asked[name]) for name in names if name in asked}
    tensors = {
        "rollout_logprobs": rollout.logprobs,
        "trainer_logprobs": trainer.logprobs,
        "cu_seqlens": rollout.cu_seqlens,
        "token_ids": rollout.token_ids,
        "mask": rollout.mask.astype(np.uint8),
    }
    save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, path, metadata)
