"""Raw uploads become Parquet in the background; retention; steps that were never completed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from driftscope_service.runs.ingest import token_keeper
from driftscope_service.runs.store.token_files import read_tokens


def parquet(pushing: Any) -> list[Path]:
    return [path for path in pushing.data_dir.glob("steps/*") if path.suffix == ".parquet"]


def converted(pushing: Any, eventually: Any, steps: int = 1) -> None:
    eventually(lambda: len(pushing.files()) == len(parquet(pushing)) == steps)


def kept(pushing: Any) -> list[int]:
    points = pushing.client.get("/v1/runs/r/steps").json()["steps"]
    return [point["step"] for point in points if point["tokens_kept"]]


def test_an_upload_becomes_parquet_with_the_same_values(pushing: Any, eventually: Any) -> None:
    body = pushing.body(metadata={"model": "é"}, token_ids=np.arange(18, dtype=np.int32))
    assert pushing.push(body).status_code == 201
    converted(pushing, eventually)
    step = read_tokens(parquet(pushing)[0])
    assert step.metadata["model"] == "é"
    for name, tensor in load(body).items():
        assert np.array_equal(step.tensors()[name], tensor), name
    assert pushing.client.get("/v1/runs/r/steps/1").json()["tokens_kept"]


def test_shards_become_one_file(pushing: Any, eventually: Any) -> None:
    for shard in (1, 0):
        body = pushing.body([4, 5], seed=shard)
        assert pushing.push(body, params={"shard": shard, "shards": 2}).status_code == 201
    assert pushing.client.post("/v1/runs/r/steps/1/complete").status_code == 201
    converted(pushing, eventually)
    step = read_tokens(parquet(pushing)[0])
    assert step.cu_seqlens.tolist() == [0, 4, 9, 13, 18]
    first = load(pushing.body([4, 5], seed=0))["rollout_logprobs"]
    assert np.array_equal(step.rollout[:9], first)


def test_the_ring_and_what_crossed_a_limit_stay(
    run_service: Any, pushing_to: Any, eventually: Any
) -> None:
    with run_service(token_ring_steps=2) as running:
        pushing = pushing_to(running)
        far = np.full(18, -9.0, np.float32)
        assert pushing.push(pushing.body(trainer_logprobs=far), step=0).json()["crossed_limits"]
        for step in range(1, 5):
            body = pushing.same(seed=step)
            assert pushing.push(body, step=step).json()["crossed_limits"] == []
        eventually(lambda: kept(pushing) == [0, 3, 4])
        converted(pushing, eventually, steps=3)
        # What is dropped are the tokens: the numbers and the repetition stay.
        assert pushing.push(pushing.same(seed=1), step=1).status_code == 200
        assert len(pushing.client.get("/v1/runs/r/steps").json()["steps"]) == 5


def test_the_budget_comes_before_everything(
    run_service: Any, pushing_to: Any, eventually: Any
) -> None:
    with run_service(token_budget_bytes=0) as running:
        pushing = pushing_to(running)
        assert pushing.push(pushing.body()).status_code == 201
        eventually(lambda: kept(pushing) == [] and pushing.files() == [])


def test_a_conversion_that_did_not_happen_is_made_up_for(
    run_service: Any, pushing_to: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, step: Any) -> int:
        path.with_name(path.name + ".partial").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(token_keeper, "write_tokens", full)
        with run_service() as running:
            pushing = pushing_to(running)
            assert pushing.push(pushing.body()).status_code == 201
            eventually(lambda: len(pushing.files()) == 2)
    with run_service() as running:
        pushing = pushing_to(running)
        converted(pushing, eventually)
        assert pushing.push(pushing.body()).status_code == 200


def test_a_step_whose_shards_stop_coming_is_forgotten(
    run_service: Any, pushing_to: Any, eventually: Any
) -> None:
    with run_service(open_step_seconds=0.2) as running:
        pushing = pushing_to(running)
        here = {"shard": 0, "shards": 2}
        assert pushing.push(pushing.body(), params=here).status_code == 201
        assert pushing.push(pushing.body(), step=2, params={"shard": 0, "shards": 1}).is_success
        assert pushing.client.post("/v1/runs/r/steps/2/complete").status_code == 201
        time.sleep(0.3)
        running.service.intake.keeper.announce()
        converted(pushing, eventually)  # of step 2; the shard of step 1 is gone
        # Its place is free again; the receipt of a complete step stays.
        assert pushing.push(pushing.body(seed=1), params=here).status_code == 201
        again = pushing.push(pushing.body(), step=2, params={"shard": 0, "shards": 1})
        assert again.status_code == 200


def test_a_file_that_disappeared_stops_nothing(pushing: Any, eventually: Any) -> None:
    assert pushing.push(pushing.body()).status_code == 201
    converted(pushing, eventually)
    parquet(pushing)[0].unlink()
    assert pushing.push(pushing.body(), step=2).status_code == 201
    converted(pushing, eventually)
    assert pushing.client.get("/v1/runs/r/steps/1").status_code == 200
