"""Good files in the push format, written by the safetensors library, and files made by hand."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

Tensors = dict[str, NDArray[Any]]
LENGTHS = (3, 0, 4)


@pytest.fixture
def tensors() -> Tensors:
    """Seven tokens in three sequences, one of them empty, with every tensor there is."""
    random = np.random.default_rng(7)
    tokens = sum(LENGTHS)
    ids = random.integers(0, 50_000, tokens, dtype=np.int32)
    return {
        "rollout_logprobs": -random.random(tokens, dtype=np.float32),
        "trainer_logprobs": (-random.random(tokens)).astype(np.float16),
        "cu_seqlens": np.cumsum([0, *LENGTHS]).astype(np.int32),
        "mask": np.array([1, 0, 1, 1, 1, 1, 0], np.uint8),
        "token_ids": ids,
        "rollout_token_ids": ids.copy(),
        "advantages": random.standard_normal(tokens, dtype=np.float32),
        "entropy": random.random(tokens, dtype=np.float32),
        "position_ids": np.arange(tokens, dtype=np.int32),
        "turn_ids": np.zeros(tokens, np.int32),
        "behavior_version": np.array([4, 4, 5], np.int32),
        "token_behavior_version": np.array([4, 5, 5, 5, 5, 6, 6], np.int32),
        "rank": np.array([0, 1, 1], np.int32),
        "replica": np.array([2, 0, 1], np.int32),
        "cached_tokens": np.array([0, 16, 48], np.int32),
        "prompt_lengths": np.array([9, 16, 50], np.int32),
        "environment": np.array([1, 0, 1], np.int32),
        "routed_experts": random.integers(0, 64, (tokens, 2, 3), dtype=np.uint8),
        "trainer_routed_experts": random.integers(0, 64, (tokens, 2, 3)).astype(np.int16),
    }


@pytest.fixture
def good(tensors: Tensors, tmp_path: Path) -> Path:
    path = tmp_path / "step.safetensors"
    save_file(tensors, path, {"schema_version": "1", "model": "m"})
    return path


@pytest.fixture
def by_hand(tmp_path: Path) -> Callable[..., Path]:
    """A file of any header, given as bytes or as an object, and any data."""

    def write(header: Any, data: bytes = b"", length: int | None = None) -> Path:
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / "hand.safetensors"
        size = len(raw) if length is None else length
        path.write_bytes(struct.pack("<Q", size) + raw + data)
        return path

    return write
