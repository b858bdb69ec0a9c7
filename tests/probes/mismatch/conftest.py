"""Ragged batches with every difficulty in them, and the same batches as plain Python lists.

The lists are the start of each test's own oracle: loops over Python floats, no numpy.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from driftscope_probes.mismatch import compare
from driftscope_probes.tokens import Tokens, checked_tokens

VERL_OWN = Path(__file__).parents[3] / "bench" / "verl_own.py"

# A loaded machine must not fail an example for its time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# (place in the response, rollout, trainer) of each token that counts, by sequence
Plain = list[list[tuple[int, float, float]]]


def make_batch(seed: int) -> Tokens:
    """Empty and masked sequences, NaN, ±inf, exact zeros, equal and far-off tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 40, size=int(rng.integers(3, 12)))
    lengths[0] = 5  # never a batch without tokens
    tokens = int(lengths.sum())
    rollout = np.log(rng.beta(3, 1, tokens)).astype(np.float32)
    scale = 10.0 ** rng.uniform(-7, 0)
    trainer = (rollout + scale * rng.normal(size=tokens)).astype(np.float32)
    for value in (0.0, np.nan, -np.inf):
        rollout[rng.random(tokens) < 0.03] = value
        trainer[rng.random(tokens) < 0.03] = value
    equal = rng.random(tokens) < 0.2
    trainer[equal] = rollout[equal]
    mask = rng.random(tokens) < rng.choice([0.5, 0.9, 1.0])
    mask[:2], rollout[:2], trainer[:2] = True, [-0.5, -1.0], [-0.25, -1.5]
    return checked_tokens(rollout, trainer, np.concatenate([[0], np.cumsum(lengths)]), mask)


def plain_lists(pair: Tokens) -> Plain:
    sequences: Plain = []
    for start, end in zip(pair.cu_seqlens[:-1].tolist(), pair.cu_seqlens[1:].tolist(), strict=True):
        kept = []
        for token in range(start, end):
            rollout, trainer = float(pair.rollout[token]), float(pair.trainer[token])
            masked = pair.mask is not None and not pair.mask[token]
            if not masked and math.isfinite(rollout) and math.isfinite(trainer):
                kept.append((token - start, rollout, trainer))
        if kept:
            sequences.append(kept)
    return sequences


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Compile first: on a fresh checkout that takes longer than a generated example may."""
    for dtype in (np.float32, np.float64):
        logprobs = np.array([-1.0, -200.0], dtype)
        compare(logprobs, logprobs[::-1], [0, 2], resamples=0)


@pytest.fixture(scope="session")
def batch() -> Callable[[int], Tokens]:
    return make_batch


@pytest.fixture(scope="session")
def plain() -> Callable[[Tokens], Plain]:
    return plain_lists


@pytest.fixture(scope="session")
def compared() -> Callable[[Tokens], dict[str, Any]]:
    """The JSON numbers of a batch, without intervals."""
    return lambda pair: compare(
        pair.rollout, pair.trainer, pair.cu_seqlens, pair.mask, resamples=0
    ).to_dict()


@pytest.fixture(scope="session")
def verl_source() -> ModuleType:
    """bench/verl_own.py, which is no part of any package."""
    spec = importlib.util.spec_from_file_location("verl_own", VERL_OWN)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def verl_wheel(verl_source: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        wheel: Path = verl_source.download_wheel(tmp_path_factory.mktemp("verl"))
    except verl_source.VerlUnreachable as error:
        pytest.skip(str(error))
    return wheel
