"""A pushed step is judged by the floor that was measured for its model, if there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from driftscope_probes.floor.store import FloorStore, StoredFloor
from driftscope_service.runs.ingest.analysis import RunFacts, StepPart, analyze_parts

RUN = RunFacts("org/odd-model", "bf16", "bf16")
SIGMA = 0.5  # of both the floor and the step: a bug by the prior of dense models


@pytest.fixture
def step(tmp_path: Path) -> StepPart:
    rng = np.random.default_rng(0)
    rollout = np.log(rng.beta(0.9, 0.5, 3000).clip(1e-4, 0.98))
    noise = SIGMA * (1 - np.exp(rollout)) * rng.normal(size=3000)
    path = tmp_path / "step.safetensors"
    tensors = {
        "rollout_logprobs": rollout.astype(np.float32),
        "trainer_logprobs": np.minimum(rollout + noise, 0.0).astype(np.float32),
        "cu_seqlens": np.arange(0, 3001, 100),
    }
    save_file(tensors, path)
    return StepPart(path, "safetensors")


def stored(**fields: Any) -> StoredFloor:
    return StoredFloor(
        **{
            "schema_version": "1",
            "model": "odd-model",
            "fingerprint": None,
            "rollout_dtype": "bf16",
            "trainer_dtype": "bf16",
            "machine": "another machine",
            "sigma": SIGMA,
            "low": None,
            "high": None,
            "basis": "same_side",
            "tokens": 512,
            "sequences": 16,
            "measured_by": "floor",
            "created_at": "2026-11-29T17:00:00+00:00",
            **fields,
        }
    )


def diagnosis(step: StepPart, run: RunFacts, floors: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(analyze_parts([step], run, floors).document)["diagnosis"]
    return found


def test_a_measured_floor_goes_before_the_prior(step: StepPart, tmp_path: Path) -> None:
    floors = tmp_path / "floors"
    before = diagnosis(step, RUN, floors)
    assert before["floor"]["source"] == "prior" and before["excess"] > 4
    FloorStore(floors).put([stored()])
    after = diagnosis(step, RUN, floors)
    assert after["floor"]["source"] == "calibrated" and after["floor"]["sigma"] == SIGMA
    assert after["excess"] == pytest.approx(1.0, rel=0.2)
    assert diagnosis(step, RUN, tmp_path / "none")["floor"]["source"] == "prior"
    assert diagnosis(step, RunFacts(None, "bf16", "bf16"), floors)["floor"]["source"] == "prior"


def test_a_broken_floor_does_not_fail_the_step(step: StepPart, tmp_path: Path) -> None:
    (tmp_path / stored().file_name).write_text("{")
    assert diagnosis(step, RUN, tmp_path)["floor"]["source"] == "prior"
