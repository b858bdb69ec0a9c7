"""Raw uploads become Parquet in the background; retention; steps that were never completed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load, save

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


def test_labels_routes_and_other_token_ids_are_kept_as_they_came(
    pushing: Any, eventually: Any
) -> None:
    tensors = {
        "token_ids": np.arange(18, dtype=np.int32),
        "rollout_token_ids": np.arange(18, dtype=np.int32) // 2,
        "rank": np.array([0, 0, 1, 1], np.int32),
        "replica": np.array([3, 2, 1, 0], np.int32),
        "cached_tokens": np.array([0, 16, 0, 64], np.int32),
        "prompt_lengths": np.array([7, 16, 9, 70], np.int32),
        "environment": np.array([1, 0, 1, 1], np.int32),
        "routed_experts": np.arange(36, dtype=np.uint16).reshape(18, 2, 1) + np.uint16(65_000),
        "trainer_routed_experts": np.arange(36, dtype=np.int32).reshape(18, 2, 1) - np.int32(1),
    }
    answer = pushing.push(pushing.body(metadata={"environments": "math,code"}, **tensors))
    assert answer.status_code == 201
    assert answer.json()["comparison"] == pushing.push(pushing.body(), step=2).json()["comparison"]
    converted(pushing, eventually, steps=2)
    # Named as they were pushed: step 2 holds none of these.
    (step,) = [read for read in map(read_tokens, parquet(pushing)) if read.extras.rank is not None]
    assert step.metadata["environments"] == "math,code"
    for name, tensor in tensors.items():
        kept_tensor = step.tensors()[name]
        assert kept_tensor.dtype == tensor.dtype and np.array_equal(kept_tensor, tensor), name


def test_every_encoding_keeps_the_labels(pushing: Any, eventually: Any) -> None:
    labels: dict[str, list[int]] = {
        "rank": [0, 4],
        "replica": [1, 0],
        "cached_tokens": [0, 2],
        "prompt_lengths": [5, 2],
        "environment": [1, 0],
    }
    sides = {"rollout_logprobs": [[-1.0, -2.0], [-0.5]], "trainer_logprobs": [[-1, -2.5], [-0.5]]}
    metadata = {"schema_version": "1", "environments": "math,code"}
    floats, ints = pa.list_(pa.float32()), pa.int32()
    columns = {name: pa.array(values, floats) for name, values in sides.items()}
    columns |= {name: pa.array(values, ints) for name, values in labels.items()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    padded = {
        name: np.array([row + [0] * (2 - len(row)) for row in rows], np.float32)
        for name, rows in sides.items()
    }
    padded["mask"] = np.array([[1, 1], [1, 0]], np.uint8)
    packed = {name: np.array(values, np.int32) for name, values in labels.items()}
    bodies = {
        "application/vnd.apache.arrow.stream": sink.getvalue().to_pybytes(),
        "application/json": json.dumps({"metadata": metadata, **sides, **labels}).encode(),
        "application/vnd.safetensors": save({**padded, **packed}, metadata),
    }
    for step, (kind, body) in enumerate(bodies.items()):
        answer = pushing.push(body, step=step, headers={"content-type": kind})
        assert answer.status_code == 201, answer.text
    converted(pushing, eventually, steps=3)
    for path in parquet(pushing):
        found = read_tokens(path)
        assert {name: found.tensors()[name].tolist() for name in labels} == labels
        assert found.metadata == metadata


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


def test_shards_with_experts_and_environments_of_their_own(pushing: Any, eventually: Any) -> None:
    """A rank names the environments that it saw, and stores ids as small as its own allow."""
    ids: list[Any] = [np.full((9, 1, 2), 200, np.uint8), np.full((9, 1, 2), 40_000, np.uint16)]
    for shard, names in enumerate(("math", "code,math")):
        body = pushing.body(
            [4, 5],
            seed=shard,
            metadata={"environments": names},
            environment=np.array([0, shard], np.int32),
            routed_experts=ids[shard],
        )
        assert pushing.push(body, params={"shard": shard, "shards": 2}).status_code == 201
    answer = pushing.client.post("/v1/runs/r/steps/1/complete")
    assert answer.status_code == 201 and answer.json()["metadata"]["environments"] == "math,code"
    converted(pushing, eventually)
    step = read_tokens(parquet(pushing)[0])
    assert step.extras.environment is not None and step.routed_experts is not None
    assert step.extras.environment.tolist() == [0, 0, 1, 0]
    assert np.array_equal(step.routed_experts, np.concatenate(ids))


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
            half = running.data_dir / "incoming"
            eventually(lambda: any(half.glob("*.partial")))
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
